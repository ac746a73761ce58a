"""What other products export."""
