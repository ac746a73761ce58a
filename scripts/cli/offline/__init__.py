"""What is done to a data directory while no service uses it."""
