"""Writes the bridge into assistants' configurations."""
