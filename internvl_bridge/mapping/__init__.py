"""What corresponds to what, tensor by tensor. Pure: no files, no torch, no transformers."""
