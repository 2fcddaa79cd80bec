"""Fleet's thinking, without tables and I/O."""
