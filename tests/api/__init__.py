"""Tests of the services through the real edge."""
