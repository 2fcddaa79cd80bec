"""The command line, the launcher and the suite's own runner."""
