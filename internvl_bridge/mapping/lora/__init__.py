"""Adapters: the family tables, lifted from weights to the factors that change them. It does not know disks or torch."""
