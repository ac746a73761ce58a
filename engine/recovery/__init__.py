"""Opening, examining and repairing a data directory."""
