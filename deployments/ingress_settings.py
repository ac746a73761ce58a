"""How one ingress behaves; the builder makes it, nothing here reads the environment."""

from __future__ import annotations

from dataclasses import dataclass, field

from deployments.settings import Settings
from engine.model.files import ALL_MINILM_L6_V2
from wire import addresses, limits


@dataclass(frozen=True, slots=True, kw_only=True)
class IngressSettings:
    """Settings of the HTTP ingress, with safe defaults."""

    version: str
    model_name: str = ALL_MINILM_L6_V2.name
    dim: int = 384
    api_key: str = field(default="", repr=False)
    """Empty: no authentication, and then `allowed_hosts` is checked."""
    public_url: str = addresses.URL
    """The server URL in the OpenAPI document; its origin counts as the service's own."""
    cors_origins: tuple[str, ...] = ()
    """Origins of web pages that may call besides the service's own; `*` lets every page in."""
    allowed_hosts: tuple[str, ...] = Settings.model_fields["allowed_hosts"].default
    """Host names (without port) the service answers to while there is no key; `*` is any."""
    max_body_bytes: int = limits.BODY_BYTES
    max_held_bytes: int = 128 * 1024 * 1024
    """Of all bodies together that wait for their answers; at least two of the largest."""
    cloud_sync_prefix: str | None = None
    """What keys in the bucket start with; None: cloud sync is off."""
    streamed_paths: frozenset[str] = frozenset({"/import"})
    """Paths whose body is read as a stream, exempt from `max_body_bytes`."""
    workspace_dir: str = ""
    """What builds read, for clients that want to know whether a file is in there."""
    replica: str = "0"
    """Label of this ingress replica's metrics."""
    health_timeout_s: float = 2.0
    """How long a health check or a scrape waits for the index."""
    embed_slice: int = 128
    """Texts handed to the embedding pool in one call by bulk work."""
    embed_concurrency: int = 4
    """Slices of one request that may be with the embedding pool at the same time."""
    max_import_streams: int = 8
    """Imports that may run at the same time; each holds some megabytes."""
    import_chunks: int = Settings.model_fields["import_chunks"].default
    """Chunks of all imports together that may be with the embedding pool at the same time."""
