"""The service's thinking: pure functions, no tables, no I/O."""
