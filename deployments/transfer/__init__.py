"""Streams of memories, in and out."""
