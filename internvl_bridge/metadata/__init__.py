"""The small files of a checkpoint: what they say, in each format. It does not know tensor data or torch."""
