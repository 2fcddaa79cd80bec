"""Tests of the services below their edge."""
