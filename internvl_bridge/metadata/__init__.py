"""The small files of a checkpoint: what they say, in each format. It knows no tensor data and no torch."""
