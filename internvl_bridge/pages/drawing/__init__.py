"""Figures as shapes with places, the same for pages and pictures. Knows no markup."""
