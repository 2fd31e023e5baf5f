"""A checkpoint directory, opened and understood. It writes nothing and knows no output."""
