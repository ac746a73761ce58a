"""The service as its own launcher reaches it."""

from __future__ import annotations

from typing import cast

import httpx

from deployments.settings import Settings
from scripts.cli.service import Service


def own_client(settings: Settings, *, timeout_s: float) -> httpx.Client:
    """A client that this service lets in."""
    headers = {"Host": _name(settings), "X-API-Key": settings.api_key.get_secret_value()}
    return httpx.Client(
        base_url=own_url(settings), trust_env=False, timeout=timeout_s, headers=headers
    )


def own_service(settings: Settings) -> Service:
    """The same as the command line has it, for what may take long."""
    key = settings.api_key.get_secret_value()
    return Service(own_url(settings), key, host=_name(settings))


def _name(settings: Settings) -> str:
    # Without a key the service answers only to the names it knows.
    return next((host for host in settings.allowed_hosts if host != "*"), "localhost")


def own_url(settings: Settings) -> str:
    """Where this machine reaches the service."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def answers(client: httpx.Client, url: str) -> bool:
    """Whether the service answers there as it should."""
    try:
        return client.get(url).is_success
    except httpx.HTTPError:
        return False


def reason_to_wait(client: httpx.Client) -> str | None:
    """What a service that is not ready waits for; None when it does not say."""
    try:
        return cast("str | None", client.get("/health/ready").json().get("reason"))
    except (httpx.HTTPError, ValueError, AttributeError):
        return None
