"""Placement's thinking, without tables or I/O."""
