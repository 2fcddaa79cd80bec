"""The nouns of Network v2.0."""
