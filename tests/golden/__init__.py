"""Answers of the service that must not change unnoticed."""
