"""The thinking of Identity, as pure functions."""
