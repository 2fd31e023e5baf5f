"""The processor's files: how images become pixels and tokens. It does not know tokenizers."""
