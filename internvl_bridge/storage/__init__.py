"""Safetensors bytes on disk: headers, shards, copying, publishing. Knows no InternVL."""
