"""Objects encrypted before they leave the machine.

A master key comes from the passphrase by scrypt (RFC 7914) and a random salt that every object
carries, so that any machine with the passphrase can read it. Each object has a key of its own
(HKDF, RFC 5869) and is a STREAM of AES-256-GCM chunks (Hoang, Reyhanitabar, Rogaway, Vizár 2015,
https://eprint.iacr.org/2015/189): truncation, reordering and exchanged objects are noticed.
Objects are named by a keyed hash of their content, so that equal files are stored once and names
tell nothing; backup names in keys are encrypted with AES-SIV (RFC 5297).
"""

from __future__ import annotations

import base64
import io
import os
import threading
from pathlib import Path
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from engine.disk.durable_files import translating_os_errors
from engine.errors import RemoteDamagedError, RemoteSealedError
from engine.offsite.seal import SEALED_MANIFEST

_MAGIC = b"FMS1"
_SALT_BYTES = 16
_OWN_BYTES = 16
_HEADER_BYTES = len(_MAGIC) + _SALT_BYTES + _OWN_BYTES
_TAG_BYTES = 16
_CHUNK_BYTES = 1 << 20
_SCRYPT_N = 1 << 15
"""Takes 32 MiB and about 0.1 s, once for each salt."""
_MOST_SALTS = 64
"""Each machine that found the bucket empty made one. Anybody may plant names with others; once
the passphrase has opened something, no more are tried."""


class Encrypted:
    """Everything is encrypted with a passphrase, or the content of a key file.

    Uses the salt of what it read first, or a new one in an empty bucket: with one salt equal
    files have one name, whichever machine stores them.
    """

    manifest_name = SEALED_MANIFEST

    def __init__(self, passphrase: bytes) -> None:
        self._passphrase = passphrase
        self._salt: bytes | None = None
        self._masters: dict[bytes, bytes] = {}
        self._lock = threading.Lock()

    def object_key(self, sha256: str) -> str:
        """A keyed hash of the content's hash."""
        mac = HMAC(self._key(self._own_salt(), b"object names"), SHA256())
        mac.update(sha256.encode())
        return f"objects/{mac.finalize().hex()}"

    def object_bytes(self, n_bytes: int) -> int:
        """Header, content, and a tag for each chunk; an empty file has one chunk too."""
        n_chunks = max(1, -(-n_bytes // _CHUNK_BYTES))
        return _HEADER_BYTES + n_bytes + n_chunks * _TAG_BYTES

    def token(self, name: str) -> str:
        """The salt and the encrypted name; the same for the same name."""
        salt = self._own_salt()
        sealed = AESSIV(self._key(salt, b"backup names", 64)).encrypt(name.encode(), [])
        return base64.urlsafe_b64encode(salt + sealed).decode().rstrip("=")

    def name_of(self, token: str) -> str:
        """The name in a key."""
        try:
            content = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
            salt, sealed = content[:_SALT_BYTES], content[_SALT_BYTES:]
            name = AESSIV(self._key(salt, b"backup names", 64)).decrypt(sealed, []).decode()
        except (InvalidTag, ValueError) as exc:
            raise _not_with_this(token) from exc
        self._remember(salt)
        return name

    def seal_file(self, path: Path, key: str, scratch: Path) -> Path:
        """Encrypt a file to `scratch`."""
        with translating_os_errors(scratch), path.open("rb") as plain, scratch.open("wb") as out:
            self._encrypt(plain, out, key)
        return scratch

    def open_file(self, path: Path, key: str) -> None:
        """Decrypt a file in its place."""
        opened = path.with_name(path.name + ".opened")
        with translating_os_errors(path):
            try:
                with path.open("rb") as sealed, opened.open("wb") as out:
                    self._decrypt(sealed, out, key)
                opened.replace(path)
            finally:
                opened.unlink(missing_ok=True)

    def seal(self, content: bytes, key: str) -> bytes:
        """Encrypt bytes."""
        out = io.BytesIO()
        self._encrypt(io.BytesIO(content), out, key)
        return out.getvalue()

    def open(self, content: bytes, key: str) -> bytes:
        """Decrypt bytes."""
        out = io.BytesIO()
        self._decrypt(io.BytesIO(content), out, key)
        return out.getvalue()

    def _encrypt(self, plain: BinaryIO, out: BinaryIO, key: str) -> None:
        header = _MAGIC + self._own_salt() + os.urandom(_OWN_BYTES)
        cipher, bound = self._cipher(header), header + key.encode()
        out.write(header)
        chunk, number = plain.read(_CHUNK_BYTES), 0
        while True:
            following = plain.read(_CHUNK_BYTES)
            out.write(cipher.encrypt(_nonce(number, is_last=not following), chunk, bound))
            if not following:
                return
            chunk, number = following, number + 1

    def _decrypt(self, sealed: BinaryIO, out: BinaryIO, key: str) -> None:
        header = sealed.read(_HEADER_BYTES)
        if len(header) < _HEADER_BYTES or not header.startswith(_MAGIC):
            raise RemoteDamagedError(f"{key} is not an encrypted object")
        cipher, bound = self._cipher(header), header + key.encode()
        chunk, number = sealed.read(_CHUNK_BYTES + _TAG_BYTES), 0
        while True:
            following = sealed.read(_CHUNK_BYTES + _TAG_BYTES)
            try:
                out.write(cipher.decrypt(_nonce(number, is_last=not following), chunk, bound))
            except InvalidTag as exc:
                raise RemoteDamagedError(
                    f"{key} is damaged, or encrypted with another passphrase"
                ) from exc
            if not following:
                return
            chunk, number = following, number + 1

    def _cipher(self, header: bytes) -> AESGCM:
        salt, own = header[len(_MAGIC) : -_OWN_BYTES], header[-_OWN_BYTES:]
        return AESGCM(self._key(salt, b"object " + own))

    def _key(self, salt: bytes, purpose: bytes, n_bytes: int = 32) -> bytes:
        return HKDF(SHA256(), n_bytes, salt=None, info=purpose).derive(self._master(salt))

    def _master(self, salt: bytes) -> bytes:
        with self._lock:
            if salt not in self._masters:
                if self._salt is not None and len(self._masters) >= _MOST_SALTS:
                    raise RemoteSealedError("too many objects here are sealed by others")
                self._masters[salt] = Scrypt(salt=salt, length=32, n=_SCRYPT_N, r=8, p=1).derive(
                    self._passphrase
                )
            return self._masters[salt]

    def _own_salt(self) -> bytes:
        with self._lock:
            if self._salt is None:
                self._salt = os.urandom(_SALT_BYTES)
            return self._salt

    def _remember(self, salt: bytes) -> None:
        with self._lock:
            if self._salt is None:
                self._salt = salt


def _nonce(number: int, *, is_last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([is_last])


def _not_with_this(token: str) -> RemoteSealedError:
    return RemoteSealedError(
        f"snapshot {token[:12]}… was encrypted with another passphrase; "
        "set CLOUD_SYNC_PASSPHRASE to that one"
    )
