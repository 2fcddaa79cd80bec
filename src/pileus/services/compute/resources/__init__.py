"""The nouns of Compute."""
