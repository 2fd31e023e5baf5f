"""The files of an output next to its weights: to_hf, to_custom, repair, and what those share. It writes nothing."""
