"""Copies of the store that can be verified and restored."""
