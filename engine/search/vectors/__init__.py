"""The vector index: exact products, and codes for a first look."""
