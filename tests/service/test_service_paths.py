"""Paths and names that would lead elsewhere: out of the workspace, the backups, the routes."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.service import Service

pytestmark = pytest.mark.service

SECRET = "The word that no memory may ever hold is xylophagous."
FILE_OUTSIDE = "outside.md"
SOURCES = [
    "/etc/passwd",
    "//etc/passwd",
    "/proc/self/environ",
    "/dev/zero",
    "OUTSIDE",
    "OUTSIDE/outside.md",
    "OUTSIDE/*.md",
    "/",
    "/**",
    "..",
    "../",
    "../outside.md",
    "../*.md",
    "../**/*.md",
    "./../outside.md",
    "inside/../../outside.md",
    "inside/..//..//outside.md",
    "missing/../../outside.md",
    "**/../../outside.md",
    "*/../../*.md",
    "..\\outside.md",
    "..%2foutside.md",
    "%2e%2e/outside.md",
    "%2e%2e%2foutside.md",
    "..%252foutside.md",
    "..%c0%afoutside.md",
    "..;/outside.md",
    "....//outside.md",
    ".../outside.md",
    "\u2025/outside.md",
    "\uff0e\uff0e/outside.md",
    "..\u2215outside.md",
    "..\u2044outside.md",
    "[.][.]/outside.md",
    "[.].[/]outside.md",
    "?./outside.md",
    "{..,x}/outside.md",
    "~",
    "~/",
    "~root/.profile",
    "$HOME/.profile",
    "${PWD}/../outside.md",
    "$(cat ../outside.md)",
    "`cat ../outside.md`",
    "file:///etc/passwd",
    "file://OUTSIDE/outside.md",
    "http://127.0.0.1/outside.md",
    "\\\\127.0.0.1\\share\\outside.md",
    "//127.0.0.1/share/outside.md",
    "C:\\outside.md",
    "C:outside.md",
    "inside.md:stream",
    "../outside.md ",
    "../outside.md\n",
    " ../outside.md",
    "../outside.md\0.md",
    "\0",
    "",
    "a/" * 2000,
    "../" * 1000 + "etc/passwd",
    "x" * 4096,
    "link_to_file.md",
    "link_to_directory",
    "link_to_directory/outside.md",
    "link_to_directory/../outside.md",
    "link_to_*/*.md",
    "link_to_link.md",
    "link_to_itself.md",
    "link_to_nothing.md",
    "link_to_device.md",
    "pipe.md",
    "socket.md",
]
"""What no build may read; `OUTSIDE` stands for a directory beside the workspace."""
BACKUPS = [
    "..",
    ".",
    "",
    "/",
    "../../workspace",
    "../backups",
    "..\\backups",
    "./NAME",
    "NAME/",
    "NAME/.",
    "NAME/../NAME",
    "NAME/memories.db",
    "../backups/NAME",
    "/etc/passwd",
    "%2e%2e",
    "NAME%00",
    "NAME\0",
    "NAME\n",
    " NAME",
    "NAME ",
    "*",
    "~",
    "\uff0e\uff0e",
    "\\\\127.0.0.1\\share",
    "C:\\",
    "n" * 200,
]
"""What names no backup; `NAME` stands for one that is there."""
ROUTES = [
    "/../stats",
    "/%2e%2e/stats",
    "//stats",
    "/stats/",
    "/stats/.",
    "/stats;x",
    "/stats%00",
    "/stats%20",
    "/stats%2f",
    "/STATS",
    "/./stats",
    "/docs/../stats",
    "/docs/%2e%2e/stats",
    "/docs/..%2fstats",
    "/docs/assets/../../../../etc/passwd",
    "/docs/assets/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "/docs/assets/..%5c..%5cetc%5cpasswd",
    "/docs/assets//etc/passwd",
    "/docs/assets/%00",
    "/health/../stats",
    "/health/%2e%2e/stats",
    "/health%2f..%2fstats",
    "/.well-known/../stats",
    "/.well-known/%2e%2e/stats",
    "/memory/..%2fstats",
    "/sync/restore/..%2f..%2fetc",
    "/-/routes",
    "/%2d/routes",
    "/.git/config",
    "/%ff%fe",
]
"""None leads to another route than the one it spells."""


@pytest.fixture(scope="module")
def traps(shared_service: Service) -> Iterator[Path]:
    """A directory beside the workspace, and in the workspace what leads there."""
    workspace = shared_service.workspace_dir
    outside = workspace.parent / "outside"
    made = [workspace / "inside", outside]
    for directory in made:
        directory.mkdir()
    for file in (outside / FILE_OUTSIDE, workspace.parent / FILE_OUTSIDE):
        file.write_text(SECRET)
        made.append(file)
    links = {
        "file.md": outside / FILE_OUTSIDE,
        "directory": outside,
        "link.md": workspace / "link_to_file.md",
        "itself.md": workspace / "link_to_itself.md",
        "nothing.md": outside / "missing.md",
        "device.md": Path("/dev/zero"),
    }
    for name, target in links.items():
        made.append(workspace / f"link_to_{name}")
        made[-1].symlink_to(target)
    made.append(workspace / "pipe.md")
    os.mkfifo(made[-1])
    made.append(workspace / "socket.md")
    listener = socket.socket(socket.AF_UNIX)
    with listener:
        listener.bind(os.path.relpath(made[-1]))  # a socket's path ends at 107 bytes
        yield outside
    for path in sorted(made, reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


@pytest.fixture
def http(shared_service: Service) -> Iterator[httpx.Client]:
    """A client of the service; what is sent with it must change nothing."""
    with httpx.Client(base_url=shared_service.base_url, timeout=120, trust_env=False) as client:
        before = lsn_of(client)
        yield client
        assert lsn_of(client) == before


def lsn_of(http: httpx.Client) -> int:
    return int(http.get("/stats").json()["lsn"])


@pytest.fixture(scope="module")
def backup(shared_service: Service) -> str:
    """The name of a backup that is there."""
    answer = httpx.post(f"{shared_service.base_url}/backup", timeout=120, trust_env=False)
    return Path(answer.json()["backup_path"]).name


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: repr(source[:40]))
def test_no_path_leads_out_of_the_workspace(http: httpx.Client, traps: Path, source: str) -> None:
    source = source.replace("OUTSIDE", str(traps))
    answer = http.post("/index/build", json={"sources": [source]})
    assert answer.status_code in {400, 422}, answer.text
    assert SECRET not in answer.text


def test_a_build_of_everything_leaves_out_what_leads_elsewhere(
    shared_service: Service, traps: Path
) -> None:
    with httpx.Client(base_url=shared_service.base_url, timeout=120, trust_env=False) as http:
        inside = shared_service.workspace_dir / "inside" / "note.md"
        inside.write_text("# Note\n\nWhat lies inside is read.")
        try:
            built = http.post("/index/build", json={"sources": ["inside/..", "*", "**/*"]})
            assert built.status_code == 200, built.text
            assert built.json()["files_processed"] == 1
            found = http.get("/memories", params={"source_prefix": "", "limit": 100}).text
            assert SECRET not in found
        finally:
            inside.unlink()
            http.post("/memory/delete-by-source", json={"source_pattern": "inside/note.md"})


@pytest.mark.parametrize("name", BACKUPS, ids=lambda name: repr(name[:40]))
def test_no_name_leads_out_of_the_backups(http: httpx.Client, backup: str, name: str) -> None:
    named = name.replace("NAME", backup)
    for route in ("/restore", "/backup/verify"):
        answer = http.post(route, json={"backup_name": named})
        assert answer.status_code in {404, 422}, (route, answer.text)
    answer = http.post("/sync/download", params={"backup_name": named, "confirm": True})
    assert answer.status_code in {400, 404, 422}, answer.text


@pytest.mark.parametrize(
    "prefix", ["../x", "/etc/x", "..", "a/b", "a\\b", "a\0b", "\n", "~", "%2e"]
)
def test_no_prefix_puts_a_backup_elsewhere(shared_service: Service, prefix: str) -> None:
    with httpx.Client(base_url=shared_service.base_url, timeout=120, trust_env=False) as http:
        made = http.post("/backup", params={"prefix": prefix})
        assert made.status_code == 200, made.text
        path = Path(made.json()["backup_path"])
        assert path.name in [backup["name"] for backup in http.get("/backups").json()["backups"]]
        assert path.parent == path.parent.resolve() == shared_service.data_dir / "backups"


@pytest.mark.parametrize("path", ROUTES)
def test_no_spelling_of_a_path_is_another_route(shared_service: Service, path: str) -> None:
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    answer = b""
    with socket.create_connection(("127.0.0.1", shared_service.port), timeout=60) as connection:
        connection.sendall(request)
        while part := connection.recv(1 << 16):
            answer += part
    assert int(answer[9:12]) in {400, 404, 405, 422}, answer[:200]
    assert b"root:" not in answer
