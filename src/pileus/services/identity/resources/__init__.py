"""The nouns of Identity."""
