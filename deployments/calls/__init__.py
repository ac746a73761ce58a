"""Calls between replicas."""
