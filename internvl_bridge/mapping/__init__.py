"""What corresponds to what, tensors and fields of config.json. Pure: no files, no torch, no transformers."""
