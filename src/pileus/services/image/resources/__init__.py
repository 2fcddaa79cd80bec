"""Image's nouns."""
