"""What the tools take, do and answer."""
