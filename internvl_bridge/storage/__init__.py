"""Safetensors bytes on disk: read, arranged, copied, compared, published. It knows no InternVL and no torch."""
