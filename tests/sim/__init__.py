"""Seeded simulations of more than one part at once."""
