"""What the benchmarks work out."""
