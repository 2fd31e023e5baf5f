"""A config and tensor specs become a proved plan. It knows no disk and no torch."""
