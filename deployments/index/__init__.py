"""The index actor."""
