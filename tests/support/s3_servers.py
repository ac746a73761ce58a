"""Two real S3 servers on loopback, moto's and rclone's, and buckets in them."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import boto3
from moto.server import ThreadedMotoServer

from deployments.index.s3_store import S3Options, S3Store

ACCESS_KEY = "test-access-key"
SECRET_KEY = "test-secret-key"
_PATIENCE_S = 60


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """A new, empty bucket."""

    endpoint: str
    name: str = field(default_factory=lambda: f"bucket-{uuid.uuid4().hex}")

    @property
    def client(self) -> Any:
        """A plain client, for looking and for doing harm."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1",
        )

    def store(self, *, endpoint: str | None = None, timeout_s: float = 30.0) -> S3Store:
        """Ours, through another endpoint (a proxy) if one is given."""
        return S3Store(
            S3Options(
                bucket=self.name,
                prefix="mine/",
                region="us-east-1",
                endpoint=endpoint or self.endpoint,
                access_key=ACCESS_KEY,
                secret_key=SECRET_KEY,
                timeout_s=timeout_s,
                attempts=2,
            )
        )

    def listed(self, prefix: str = "") -> list[str]:
        """Keys under our prefix, without it."""
        return [stored.key for stored in self.store().list(prefix).objects]

    def settings(self) -> dict[str, str]:
        """The environment of a service that uses this bucket."""
        return {
            "CLOUD_SYNC_ENABLED": "true",
            "CLOUD_SYNC_BUCKET": self.name,
            "CLOUD_SYNC_ENDPOINT": self.endpoint,
            "CLOUD_SYNC_ACCESS_KEY": ACCESS_KEY,
            "CLOUD_SYNC_SECRET_KEY": SECRET_KEY,
            "CLOUD_SYNC_INTERVAL_S": "0",
            "CLOUD_SYNC_TIMEOUT_S": "10",
        }


@contextmanager
def moto_server() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it says every request
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    try:
        host, port = running.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        running.stop()


@contextmanager
def rclone_server(directory: Path) -> Iterator[str]:
    port = unused_port()
    process = subprocess.Popen(
        [
            Path(sys.executable).with_name("rclone"),
            *("serve", "s3", "--config", "", "--addr", f"127.0.0.1:{port}"),
            *("--auth-key", f"{ACCESS_KEY},{SECRET_KEY}", str(directory)),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_it_answers(url)
        yield url
    finally:
        process.terminate()
        process.wait()


def new_bucket(endpoint: str) -> Bucket:
    """Make a bucket on a server."""
    bucket = Bucket(endpoint=endpoint)
    bucket.client.create_bucket(Bucket=bucket.name)
    return bucket


def unused_port() -> int:
    """A port where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_it_answers(url: str) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        try:
            urlopen(url, timeout=5).close()
        except HTTPError:
            return  # it refuses strangers: it is there
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"{url} does not answer")
