"""What is known of the world that checkpoints come from, as tables; the documentation shows the same ones. Pure."""
