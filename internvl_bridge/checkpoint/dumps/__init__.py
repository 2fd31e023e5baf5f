"""Weights in other containers: pytorch_model*.bin, torch.distributed.checkpoint. Tensors are found, not loaded."""
