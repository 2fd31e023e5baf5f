"""What reports are made of. Knows neither checkpoints nor terminals."""
