"""Tests of Compute."""
