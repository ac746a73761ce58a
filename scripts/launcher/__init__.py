"""The service on this machine: what starts, watches and stops it."""
