"""Weights as trainers dump them: pickled, or cut up by torch.distributed.checkpoint; located, never loaded."""
