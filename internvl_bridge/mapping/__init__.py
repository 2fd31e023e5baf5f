"""What corresponds to what. Pure: no files, no torch, no transformers."""
