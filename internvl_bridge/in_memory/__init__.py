"""Tensors and models in memory, converted. It writes no checkpoint; torch and transformers are imported here."""
