"""What Compute thinks with: pure functions."""
