"""Fetches the embedding model and builds the graphs that the service runs."""
