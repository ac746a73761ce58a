"""Files into memories: once, and for as long as they change."""
