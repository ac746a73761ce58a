"""Thin Ray Serve processes around the engine."""
