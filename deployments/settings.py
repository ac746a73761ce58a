"""How the service behaves, read from the environment once: by the launcher or the builder.

`serve_config.yaml` says how it runs (replicas, CPUs, queues); nothing is set in both.
Deployments get the finished, frozen settings as an argument and never read the environment.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeInt,
    PositiveInt,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from deployments.places import default_data_dir
from engine import defaults
from engine.model.files import ALL_MINILM_L6_V2
from wire import addresses, limits

_MAX_KEY_CHARS = 1024
"""Beside other headers it must fit what HAProxy reads of them."""


class SettingsError(ValueError):
    """An environment variable has a value the service cannot run with; the message names it."""


def _split_commas(value: object) -> object:
    if isinstance(value, str):
        return tuple(part for part in (raw.strip() for raw in value.split(",")) if part)
    return value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


AutoBuild = Literal["false", "true", "watch"]
CommaSeparated = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_commas)]
Seconds = Annotated[float, Field(gt=0)]
Cosine = Annotated[float, Field(ge=0, le=1)]


class Settings(BaseSettings):
    """Each field is an environment variable of the same name in capitals; empty means unset."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    # Where things are.
    data_dir: Path = Field(default_factory=default_data_dir)
    workspace_dir: Path = Path()
    """What `/index/build` may read."""
    auto_build: Annotated[AutoBuild, BeforeValidator(_lower)] = "false"
    """Build the workspace at each start; `watch`: again whenever a file there changes."""

    # Who may call.
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = addresses.PORT
    api_key: SecretStr = SecretStr("")
    allow_no_auth: bool = False
    """Accept a non-loopback `host` without a key: a container that publishes to loopback."""
    cors_origins: CommaSeparated = ()
    allowed_hosts: CommaSeparated = ("localhost", "127.0.0.1", "[::1]")
    public_url: str = ""
    """Where assistants reach the service if not at localhost; in the OpenAPI document."""
    max_body_bytes: Annotated[int, Field(ge=1024)] = limits.BODY_BYTES
    dashboard: bool = False
    """Serve's part of Ray's dashboard, on loopback, for those who have the token of this Ray."""
    dashboard_port: Annotated[int, Field(ge=1, le=65535)] = 8265

    # The model.
    model_name: str = ALL_MINILM_L6_V2.name
    model_dir: Path | None = None
    """None: the cache that set-up fills."""
    model_precision: Literal["auto", "fp32", "int8"] = "auto"
    query_cache_size: Annotated[int, Field(ge=0)] = 2048
    """Query embeddings remembered by each embedder replica."""

    # The index.
    dedup_threshold: Cosine = defaults.DEDUP_THRESHOLD
    exact_below: PositiveInt = defaults.EXACT_BELOW
    """Rows from which the vector index is quantised and refined instead of exact."""
    compact_from: PositiveInt = defaults.COMPACT_FROM
    """Deleted or replaced rows from which the indexes are compacted."""
    cache_after: PositiveInt = defaults.CACHE_AFTER
    """Changes after which the keyword index is cached on disk."""
    index_memory_mb: PositiveInt | None = None
    """MiB that all indexes in memory should take; those used least recently are given back."""
    max_backups: NonNegativeInt = defaults.MAX_BACKUPS
    """Automatic backups kept; 0 makes none."""

    # Bounds; what is beyond them gets 429.
    max_queued_texts: PositiveInt = 4096
    """Texts that may wait in one embedder replica."""
    max_queued_queries: PositiveInt = 256
    """Queries that may wait in one embedder replica."""
    max_queued_writes: PositiveInt = 1024
    """Writes that may wait for the index."""
    import_chunks: PositiveInt = 3
    """Chunks of imports that an ingress keeps the embedders busy with: two seconds of one each."""

    # Patience.
    request_timeout_s: Seconds = 30.0
    """How long a request waits for an embedder or the index, restarts included."""
    build_timeout_s: Seconds = 3600.0
    """The same for a build, a backup, a restore or a deduplication."""
    start_timeout_s: Seconds = 300.0
    stop_timeout_s: Seconds = 10.0

    # Logs.
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"
    """`auto`: JSON unless stderr is a terminal."""
    log_pipe: Path | None = None
    """A named pipe that replicas write their log lines to; the launcher sets and reads it."""

    # Cloud sync.
    cloud_sync_enabled: bool = False
    cloud_sync_bucket: str = ""
    cloud_sync_prefix: str = "faiss-memory/"
    cloud_sync_region: str = "us-east-1"
    cloud_sync_endpoint: str = ""
    cloud_sync_access_key: SecretStr = SecretStr("")
    cloud_sync_secret_key: SecretStr = SecretStr("")
    cloud_sync_secret_key_file: Path | None = None
    cloud_sync_passphrase: SecretStr = SecretStr("")
    """Encrypts everything before it leaves the machine; empty: nothing is encrypted."""
    cloud_sync_passphrase_file: Path | None = None
    """A file that holds the passphrase, or a random key."""
    cloud_sync_allow_empty_start: bool = False
    """An empty data directory may start empty while the bucket cannot be reached."""
    cloud_sync_keep: Annotated[int, Field(ge=2)] = 20
    """Newest snapshots that stay in the bucket."""
    cloud_sync_keep_days: NonNegativeInt = 30
    """Days of which the last snapshot stays too."""
    cloud_sync_interval_s: Annotated[float, Field(ge=0)] = 10.0
    """Between two automatic uploads at least."""
    cloud_sync_timeout_s: Seconds = 20.0
    """How long the bucket may take to connect, and to send or take anything."""

    @field_validator(
        "data_dir",
        "workspace_dir",
        "model_dir",
        "log_pipe",
        "cloud_sync_secret_key_file",
        "cloud_sync_passphrase_file",
    )
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        """Replicas have another working directory than the launcher."""
        return None if path is None else path.expanduser().absolute()

    @field_validator("api_key")
    @classmethod
    def _fits_a_header(cls, key: SecretStr) -> SecretStr:
        value = key.get_secret_value()
        if value != value.strip() or not (value.isascii() and value.isprintable()):
            raise ValueError(
                "a key is sent in a header: only printable ASCII characters, no spaces at its ends "
                "and no line breaks; `openssl rand -hex 32` makes one"
            )
        if len(value) > _MAX_KEY_CHARS:
            raise ValueError(f"a key has at most {_MAX_KEY_CHARS} characters")
        return key

    @model_validator(mode="after")
    def _needs_a_key_beyond_loopback(self) -> Settings:
        if not (
            self.host.strip("[]") in addresses.LOOPBACK_HOSTS
            or self.has_api_key
            or self.allow_no_auth
        ):
            raise ValueError(
                f"HOST={self.host} lets other machines in and API_KEY is empty: set API_KEY, "
                "or HOST=127.0.0.1, or ALLOW_NO_AUTH=true if something else keeps strangers out"
            )
        return self

    @model_validator(mode="after")
    def _cloud_sync_is_complete(self) -> Settings:
        if not self.cloud_sync_enabled:
            return self
        if not self.cloud_sync_bucket:
            raise ValueError("CLOUD_SYNC_ENABLED=true needs CLOUD_SYNC_BUCKET")
        has_secret = bool(
            self.cloud_sync_secret_key.get_secret_value() or self.cloud_sync_secret_key_file
        )
        if bool(self.cloud_sync_access_key.get_secret_value()) != has_secret:
            raise ValueError(
                "set both CLOUD_SYNC_ACCESS_KEY and CLOUD_SYNC_SECRET_KEY (or "
                "CLOUD_SYNC_SECRET_KEY_FILE), or neither to use boto3's own chain"
            )
        if not self.max_backups:
            raise ValueError("CLOUD_SYNC_ENABLED=true uploads automatic backups: MAX_BACKUPS is 0")
        return self

    @property
    def has_api_key(self) -> bool:
        """Whether callers must authenticate."""
        return bool(self.api_key.get_secret_value())

    @property
    def index_memory_bytes(self) -> int | None:
        """What `index_memory_mb` is in bytes."""
        return None if self.index_memory_mb is None else self.index_memory_mb << 20

    def masked(self) -> dict[str, Any]:
        """Every setting as JSON values, secrets masked, to be logged."""
        return self.model_dump(mode="json")


def load_settings(**overrides: Any) -> Settings:  # noqa: ANN401 (any field's raw value)
    """Read the environment.

    Args:
        overrides: fields given otherwise (builder arguments, command line); they win.

    Raises:
        SettingsError: one line for each bad variable.
    """
    try:
        return Settings(**overrides)
    except ValidationError as exc:
        raise SettingsError("\n".join(_explain(error) for error in exc.errors())) from None


def _explain(error: Mapping[str, Any]) -> str:
    """One line that names the variable; a secret's value is never part of it."""
    if not error["loc"]:
        return str(error["msg"]).removeprefix("Value error, ")
    name = str(error["loc"][0])
    secret = Settings.model_fields[name].annotation is SecretStr
    value = "" if secret else f"={str(error['input'])[:200]}"
    return f"{name.upper()}{value}: {str(error['msg']).removeprefix('Value error, ')}"
