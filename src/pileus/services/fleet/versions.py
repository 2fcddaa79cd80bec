"""Fleet has no public API, and so no versions."""
