"""The derived indexes, and what a search makes of them."""
