"""Speed and quality, measured: fixed seeds, JSON out, ratios against a baseline."""
