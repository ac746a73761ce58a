"""What is skipped as said already, and what is not."""
