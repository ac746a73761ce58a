"""Which memories say the same, in one write and in a whole store."""
