"""Warnings that would otherwise be repeated with every listing."""

from __future__ import annotations

import functools
import logging


@functools.lru_cache(maxsize=4096)
def warn_once(log: logging.Logger, message: str) -> None:
    """Log a warning, unless this process has just logged the same."""
    log.warning("%s", message)
