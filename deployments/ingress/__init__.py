"""The HTTP application and its replica."""
