"""The durable truth: one SQLite database."""
