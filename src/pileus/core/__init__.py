"""Shared by every room of the house; knows no cloud noun."""
