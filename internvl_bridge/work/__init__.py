"""Long work: its progress, interrupts by the user, and several workers. It knows nothing of checkpoints."""
