"""Safetensors bytes on disk: read, arranged, copied, compared, published. It does not know InternVL or torch."""
