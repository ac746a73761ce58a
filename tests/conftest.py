"""Fixtures that several test files share."""

from tests.service import shared_service

__all__ = ["shared_service"]
