"""Tests of Identity's rules and interface."""
