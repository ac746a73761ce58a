"""An object store behind the S3 protocol: AWS, MinIO, R2, B2 and the like, through boto3.

Retries, time-outs and the search for credentials are boto3's own; what is here is which of its
switches fit servers other than Amazon's, and what its errors mean in words.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import boto3
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, NoCredentialsError
from s3transfer.exceptions import (
    RetriesExceededError,
    S3DownloadFailedError,
    S3UploadFailedError,
)
from urllib3.exceptions import HTTPError

from engine.disk.durable_files import translating_os_errors
from engine.errors import RemoteDamagedError, RemoteError
from engine.offsite.object_store import ObjectListing, StoredObject

_PART_BYTES = 16 << 20
_MISSING = frozenset({"NoSuchKey", "404", "NotFound"})
_DENIED = frozenset(
    {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "403"}
    | {"InvalidToken", "Forbidden", "Unauthorized", "401", "InvalidClientTokenId"}
)

_TRANSPORT_ERRORS = (
    *(BotoCoreError, HTTPClientError, Boto3Error, HTTPError, ConnectionError),
    *(RetriesExceededError, S3DownloadFailedError, S3UploadFailedError),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Options:
    """Which bucket, and how patiently."""

    bucket: str
    prefix: str
    region: str
    endpoint: str | None
    """None: Amazon's, or what boto3's own configuration names."""
    access_key: str | None
    """None: boto3 looks for credentials itself."""
    secret_key: str | None
    timeout_s: float
    """To connect, and for each read."""
    attempts: int = 4
    """Of each request, with pauses that grow."""


class S3Store:
    """Objects of one bucket under one prefix. Safe for several threads."""

    def __init__(self, options: S3Options) -> None:
        """Connect to nothing yet."""
        self._bucket = options.bucket
        prefix = options.prefix.strip("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self.location = f"s3://{self._bucket}/{self._prefix}"
        self._where = self.location + (f" at {options.endpoint}" if options.endpoint else "")
        self._client = _client(options)
        # In the caller's thread: no pool of threads beside searches.
        self._transfer = TransferConfig(
            multipart_threshold=_PART_BYTES, multipart_chunksize=_PART_BYTES, use_threads=False
        )

    def list(self, prefix: str) -> ObjectListing:
        """Every object whose key starts with `prefix`, all pages, by key."""
        found: list[StoredObject] = []
        now_s = time.time()
        with self._translating("list"):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix + prefix
            )
            for page in pages:
                now_s = _server_time_s(page) or now_s
                found += [
                    StoredObject(
                        key=item["Key"].removeprefix(self._prefix),
                        n_bytes=item["Size"],
                        modified_s=item["LastModified"].timestamp(),
                    )
                    for item in page.get("Contents", ())
                ]
        return ObjectListing(objects=found, now_s=now_s)

    def put(self, key: str, content: bytes) -> None:
        """Write an object whole."""
        with self._translating("write to"):
            self._client.put_object(Bucket=self._bucket, Key=self._prefix + key, Body=content)

    def put_file(self, key: str, path: Path) -> None:
        """Write a file as an object; a large one in parts."""
        with self._translating("write to"):
            self._client.upload_file(
                str(path), self._bucket, self._prefix + key, Config=self._transfer
            )

    def get(self, key: str, *, max_bytes: int) -> bytes:
        """Read an object."""
        with self._translating("read from", key):
            answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)
            with closing(answer["Body"]) as body:
                content: bytes = body.read(max_bytes)
                if body.read(1):  # at the end, this compares with the length that was announced
                    raise _too_large(key, max_bytes)
        return content

    def get_file(self, key: str, path: Path, *, max_bytes: int) -> None:
        """Read an object into a file."""
        with (
            translating_os_errors(path),
            _BoundedFile(path, key, max_bytes) as file,
            self._translating("read from", key),
        ):
            self._client.download_fileobj(
                self._bucket, self._prefix + key, file, Config=self._transfer
            )

    def delete(self, keys: Sequence[str]) -> None:
        """Remove objects, one request each: not every server takes many at once."""
        with self._translating("delete from"):
            for key in keys:
                self._client.delete_object(Bucket=self._bucket, Key=self._prefix + key)

    def abort_uploads(self, before_s: float) -> None:
        """Forget uploads in parts that were begun before a time and never ended."""
        with self._translating("list"):
            pages = self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._bucket, Prefix=self._prefix
            )
            for page in pages:
                for upload in page.get("Uploads", ()):
                    if upload["Initiated"].timestamp() < before_s:
                        self._client.abort_multipart_upload(
                            Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                        )

    @contextmanager
    def _translating(self, action: str, key: str | None = None) -> Iterator[None]:
        """Turn what boto3 raises into the engine's errors; no message holds a secret."""
        try:
            yield
        except ClientError as exc:
            code = str(exc.response.get("Error", {}).get("Code", "unknown"))
            if key is not None and code in _MISSING:
                raise RemoteDamagedError(f"{key} is not in {self.location}") from exc
            raise RemoteError(f"cannot {action} {self._where}: {_in_words(code, exc)}") from exc
        except NoCredentialsError as exc:
            raise RemoteError(
                f"cannot {action} {self._where}: there are no credentials; set "
                "CLOUD_SYNC_ACCESS_KEY and CLOUD_SYNC_SECRET_KEY"
            ) from exc
        except _TRANSPORT_ERRORS as exc:
            # Some of boto3's own carry the server's answer as their cause.
            cause = exc.__cause__ or exc.__context__
            if isinstance(cause, ClientError):
                code = str(cause.response.get("Error", {}).get("Code", "unknown"))
                raise RemoteError(
                    f"cannot {action} {self._where}: {_in_words(code, cause)}"
                ) from exc
            raise RemoteError(f"cannot {action} {self._where}: {exc}") from exc


class _BoundedFile(io.BufferedWriter):
    """A new file that takes no more than an object may hold."""

    def __init__(self, path: Path, key: str, max_bytes: int) -> None:
        super().__init__(io.FileIO(path, "w"))
        self._key = key
        self._max_bytes = max_bytes

    def write(self, content: Any, /) -> int:  # noqa: ANN401 - whatever holds bytes
        if self.tell() + len(content) > self._max_bytes:
            raise _too_large(self._key, self._max_bytes)
        return super().write(content)


def _too_large(key: str, max_bytes: int) -> RemoteDamagedError:
    return RemoteDamagedError(f"{key} is larger than the {max_bytes} bytes that it may have")


def _client(options: S3Options) -> Any:  # noqa: ANN401 - boto3 makes its classes at run time
    return boto3.session.Session().client(
        "s3",
        region_name=options.region,
        endpoint_url=options.endpoint,
        aws_access_key_id=options.access_key,
        aws_secret_access_key=options.secret_key,
        config=Config(
            signature_version="s3v4",
            connect_timeout=options.timeout_s,
            read_timeout=options.timeout_s,
            retries={"mode": "standard", "total_max_attempts": options.attempts},
            # A bucket as part of the host name needs DNS that only Amazon's endpoint surely has.
            s3={"addressing_style": "path" if options.endpoint else "auto"},
            # Newer checksums are refused by some servers; the body is signed or sent over TLS.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def _server_time_s(page: dict[str, Any]) -> float | None:
    date = page.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    try:
        return None if date is None else parsedate_to_datetime(date).timestamp()
    except ValueError:
        return None


def _in_words(code: str, exc: ClientError) -> str:
    if code in _DENIED:
        return (
            f"the server refused the credentials ({code}); see CLOUD_SYNC_ACCESS_KEY, "
            "CLOUD_SYNC_SECRET_KEY and what that key may do with the bucket"
        )
    if code == "NoSuchBucket":
        return "there is no such bucket; make it, or set CLOUD_SYNC_BUCKET"
    message = str(exc.response.get("Error", {}).get("Message", ""))[:200]
    return f"{code}: {message}" if message else code
