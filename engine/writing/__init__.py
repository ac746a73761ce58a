"""The one thread that changes anything, and what it decides."""
