"""Placement: who offers how much of what, and who holds how much of it."""
