"""A checkpoint directory, opened and understood. It writes nothing, and does not know outputs."""
