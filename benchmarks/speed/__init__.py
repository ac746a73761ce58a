"""How fast it is, and what it weighs."""
