"""Placement's nouns."""
