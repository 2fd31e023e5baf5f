"""How a model is prompted: conversations, chat templates, where an answer ends. It reads no tokenizer file."""
