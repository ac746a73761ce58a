"""Backups as somebody else may make them: odd manifests, and databases that never end."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import struct
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.backups.manifest import MANIFEST_NAME, read_manifest, write_manifest
from engine.disk.durable_files import sha256_of
from engine.store.layout.row_checksum import row_checksum
from engine.store.layout.schema import APPLICATION_ID

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT"


def sealed(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Changed fields of a manifest with the checksum that makes them pass for written ones."""
    known = {k: v for k, v in fields.items() if k not in ("format", "checksum")}
    checksum = row_checksum([json.dumps(known, sort_keys=True)])
    return {"format": fields.get("format", 2), "checksum": checksum, **known}


def _changed(fields: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    changed: dict[str, Any] = json.loads(json.dumps(fields))
    *parents, last = path.split(".")
    place: Any = changed
    for name in parents:
        place = place[int(name) if isinstance(place, list) else name]
    place[last] = value
    return changed


def odd_manifests(fields: dict[str, Any]) -> dict[str, bytes]:
    """Contents that are no manifests of ours, made from one that is, by what is odd in them."""
    odd: dict[str, list[object]] = {
        "created_s": ["abc", float("inf"), float("nan"), None, [], -1, 1e300],
        "kind": ["odd", None, 3, ["automatic"], {}],
        "facts": [None, [], "x", {}],
        "facts.lsn": ["1", -1, 1.5, 10**30, True, None],
        "facts.total_memories": ["1", -1, None, float("inf")],
        "facts.last_id": ["1", 10**30, []],
        "facts.epoch": [3, "a\nb", "\ud800", None],
        "facts.model": [None, [], "m", {"dim": {}}],
        "files": [None, [], "x", {}, [None], [[]]],
        "files.0.name": [3, "../../etc/passwd", "a/b.db", "", "x" * 5000],
        "files.0.n_bytes": ["1", -1, float("inf"), 10**30],
        "files.0.from_lsn": [3, "x", -1],
        "files.0.sha256": [3, "", "z" * 64],
        "unknown": [1],
        "format": [0, "2", True, None, [], 99],
    }
    contents = {
        f"{path} {value!r:.20}": json.dumps(sealed(_changed(fields, path, value))).encode()
        for path, values in odd.items()
        for value in values
    }
    return {
        **contents,
        "array": b"[]",
        "nothing": b"",
        "deep": b"[" * 100_000,
        "not text": b"\xff\xfe\x00",
        "infinite number": json.dumps(sealed(fields)).replace("[", "[1e999, ", 1).encode(),
    }


def plant_odd_backups(backups_dir: Path, good: str) -> list[str]:
    """Put backups with odd manifests beside a good one; returns their names."""
    fields = json.loads((backups_dir / good / MANIFEST_NAME).read_bytes())
    names = []
    for n, content in enumerate(odd_manifests(fields).values()):
        directory = backups_dir / f"odd_20990101_{n:06d}"
        shutil.copytree(backups_dir / good, directory)
        (directory / MANIFEST_NAME).unlink()
        (directory / MANIFEST_NAME).write_bytes(content)
        names.append(directory.name)
    (backups_dir / "odd_20990102_000000" / MANIFEST_NAME).mkdir(parents=True)
    (backups_dir / "odd_20990102_000001").mkdir()
    os.mkfifo(backups_dir / "odd_20990102_000001" / MANIFEST_NAME)
    (backups_dir / "odd_20990102_000002").write_bytes(b"a file")
    return [*names, *(f"odd_20990102_00000{n}" for n in range(3))]


def change_backup(directory: Path, change: Callable[[Path], object], *, which: int = 0) -> None:
    """Change one file of a backup, and its manifest so that it agrees."""
    manifest = read_manifest(directory)
    assert manifest is not None
    file = manifest.files[which]
    path = directory / file.name
    content = path.read_bytes()
    path.unlink()  # it may be a hard link
    path.write_bytes(content)
    change(path)
    changed = replace(file, n_bytes=path.stat().st_size, sha256=sha256_of(path))
    files = (*manifest.files[:which], changed, *manifest.files[which + 1 :])
    write_manifest(directory, replace(manifest, files=files))


def running(*statements: str) -> Callable[[Path], None]:
    """A change by SQL, with what the layout says open to change."""

    def change(path: Path) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA writable_schema = ON")
            for statement in statements:
                connection.execute(statement)

    return change


def change_row(table: str, where: str, **values: object) -> Callable[[Path], None]:
    """Change columns of rows, with the checksums that make them pass for written ones."""

    def change(path: Path) -> None:
        with closing(sqlite3.connect(path)) as connection:
            connection.row_factory = sqlite3.Row
            for row in connection.execute(f"SELECT * FROM {table} WHERE {where}").fetchall():
                changed = {**dict(row), **values}
                checked = [value for name, value in changed.items() if name != "checksum"]
                if "checksum" in changed:
                    changed["checksum"] = row_checksum(checked)
                connection.execute(f"DELETE FROM {table} WHERE {where}")
                marks = ", ".join("?" * len(changed))
                connection.execute(f"INSERT INTO {table} VALUES ({marks})", tuple(changed.values()))
            connection.commit()

    return change


HOSTILE: dict[str, Callable[[Path], object]] = {
    "a view in the place of a table": running(
        "DROP TABLE memories",
        f"CREATE VIEW memories AS {ENDLESS} i AS id, '' AS text, '' AS source, NULL AS key, "
        "0 AS created_us, 0 AS updated_us, '{}' AS metadata, 0 AS lsn, 0 AS checksum FROM n",
    ),
    "a view in the place of the facts": running(
        "DROP TABLE meta", f"CREATE VIEW meta AS {ENDLESS} 'x' AS name, i AS value FROM n"
    ),
    "a trigger": running(
        "CREATE TRIGGER t AFTER DELETE ON embeddings BEGIN "
        f"INSERT INTO tombstones SELECT i, i, i FROM ({ENDLESS} i FROM n); END"
    ),
    "a check": running(
        "UPDATE sqlite_master SET sql = replace(sql, 'lsn INTEGER NOT NULL', "
        "'lsn INTEGER NOT NULL CHECK (length(hex(zeroblob(500000000))) > 3)') "
        "WHERE name = 'memories'"
    ),
    "an index by an expression": running(
        "CREATE INDEX e ON memories (abs(id))",
        "UPDATE sqlite_master SET sql = 'CREATE INDEX e ON memories "
        "(length(hex(zeroblob(500000000))))' WHERE name = 'e'",
    ),
    "one table more": running("CREATE TABLE sqlite_stat1x (a)"),
    "two tables in one place": running(
        "UPDATE sqlite_master SET rootpage = (SELECT rootpage FROM sqlite_master WHERE "
        "name = 'tombstones') WHERE name = 'embeddings'"
    ),
    "no database": lambda path: path.write_bytes(b"x" * 10_000),
    "a tree that is never read to its end": lambda path: path.write_bytes(endless_tree()),
}


def endless_tree(depth: int = 15, fan_out: int = 50) -> bytes:
    """A database whose layout is a tree of pages that each name the next one `fan_out` times."""
    size = 1024
    header = bytearray(100)
    header[:16] = b"SQLite format 3\0"
    struct.pack_into(">HBBBBBB", header, 16, size, 1, 1, 0, 64, 32, 32)
    struct.pack_into(">III", header, 24, 1, depth + 1, 0)
    struct.pack_into(">IIIIIII", header, 40, 1, 4, 0, 0, 1, 2, 0)
    struct.pack_into(">I", header, 68, APPLICATION_ID)
    struct.pack_into(">II", header, 92, 1, 3_040_000)
    leaf = bytearray(size)
    leaf[-8:] = bytes([6, 1, 6, 0, 0, 0, 0, 0])
    leaf[:10] = struct.pack(">BHHHBH", 13, 0, 1, size - 8, 0, size - 8)
    trees = [_interior(child, fan_out, size) for child in range(3, depth + 2)]
    first = _interior(2, fan_out, size, at=100)
    return bytes(header) + first[100:] + b"".join(trees) + bytes(leaf)


def _interior(child: int, n: int, size: int, *, at: int = 0) -> bytes:
    page = bytearray(size)
    struct.pack_into(">BHHHBI", page, at, 5, 0, n, size - 5 * n, 0, child)
    for i in range(n):
        struct.pack_into(">H", page, at + 12 + 2 * i, size - 5 * (i + 1))
        struct.pack_into(">IB", page, size - 5 * (i + 1), child, i + 1)
    return bytes(page)
