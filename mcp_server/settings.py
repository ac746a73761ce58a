"""Where the service is and how long to wait for it, from the environment."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from wire import limits
from wire.addresses import LOOPBACK_HOSTS, URL


class BridgeSettings(BaseSettings):
    """What a bridge process needs to know. Each field is the environment variable of its name."""

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore")

    faiss_url: str = URL
    """Base URL of the service; a trailing slash is fine."""
    faiss_api_key: SecretStr = SecretStr("")
    """The service's API_KEY, or one of its keys; empty when it asks for none."""
    faiss_namespace: Annotated[str, Field(pattern=f"^$|{limits.NAMESPACE}")] = ""
    """The namespace that is used; empty leaves it to the key, and then it is `default`."""
    faiss_wait_s: Annotated[float, Field(ge=0, le=600)] = 15.0
    """How long a call waits for a service that is down, loading or overloaded, in seconds."""
    faiss_timeout_s: Annotated[float, Field(gt=0, le=3600)] = 60.0
    """How long one request may take, in seconds."""

    @field_validator("faiss_url")
    @classmethod
    def _is_http_url(cls, url: str) -> str:
        parts = urlsplit(url.strip())
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"FAISS_URL is {url!r}; expected something like {URL}")
        return url.strip().rstrip("/")

    @property
    def is_loopback(self) -> bool:
        """Whether the service is on this machine."""
        return urlsplit(self.faiss_url).hostname in LOOPBACK_HOSTS
