"""Data directories of the original service."""
