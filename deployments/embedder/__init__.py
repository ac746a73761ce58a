"""The embedding pool's replica."""
