"""The processor's files: how images become pixels and tokens. It knows no tokenizer."""
