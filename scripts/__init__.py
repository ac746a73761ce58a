"""Set-up and operator commands."""
