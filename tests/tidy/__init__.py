"""Tests that keep the house in order: names, sizes, imports, floor plan, documents."""
