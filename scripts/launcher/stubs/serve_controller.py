"""Imported by Serve's controller, through `RAY_SERVE_CONTROLLER_CALLBACK_IMPORT_PATH`."""

from __future__ import annotations


def without_fallback_proxy() -> None:
    """Start no Python proxy beside HAProxy.

    It only queues requests while no ingress replica lives; HAProxy's own 503 with `Retry-After`
    does as well, without a process of 90 MB.
    """
    from ray.serve._private.proxy_state import ProxyStateManager

    ProxyStateManager._start_fallback_proxy_if_needed = lambda *_: None
