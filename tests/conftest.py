"""Fixtures that several test files share."""

from tests.service import mortal_service, shared_service

__all__ = ["mortal_service", "shared_service"]
