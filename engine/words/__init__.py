"""What a text says, word by word: pure functions."""
