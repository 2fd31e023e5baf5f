"""The tokenizer's files: read, checked and made for HF. It loads no tokenizer and runs no remote code."""
