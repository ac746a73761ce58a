"""What can be asked of an index: each operation a value that travels, and knows how it runs."""
