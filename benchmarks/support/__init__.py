"""What every benchmark works with: texts, stores, services, clocks, and where figures go."""
