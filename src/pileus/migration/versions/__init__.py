"""Each file takes the schema from one revision to the next."""
