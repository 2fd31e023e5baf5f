"""A config and tensor specs become a proved plan. It does not know disks or torch."""
