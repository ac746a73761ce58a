"""Files that are on disk when a call returns."""
