"""Make the data directory of this release that the tests open for ever: one for each format.

    .venv/bin/python -m tests.golden.make_data_directory

Run it once, when a release has raised the format; what it wrote for older formats must never be
written anew, since only files that an older release really wrote prove that they can be read.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

from engine.memory_index import MemoryIndex
from engine.namespace import Namespace
from engine.records import MemoryFilter, MemoryId, MemoryPatch, NewMemory
from engine.store.layout.tables import FORMAT_VERSION
from tests.support.fakes import embedding_of
from tests.support.index_under_test import add, fresh_request_id, open_index

DIRECTORIES = Path(__file__).parent / "data_directories"
EXPECTED_NAME = "expected.json"


def memories_in(namespace: Namespace) -> list[dict[str, object]]:
    page = namespace.list_memories(MemoryFilter(), offset=0, limit=100)
    return [asdict(memory) for memory in page.memories]


def namespaces_in(index: MemoryIndex) -> dict[str, list[dict[str, object]]]:
    """What every namespace but `default` holds."""
    names = [each.name for each in index.namespaces() if each.name != "default"]
    return {name: memories_in(index.namespace(name)) for name in names}


def main() -> None:
    directory = DIRECTORIES / f"format_{FORMAT_VERSION}"
    if directory.exists():
        raise SystemExit(f"{directory} exists; it is never written anew")
    index = open_index(directory, max_backups=0)
    add(index, "The deploy day is Tuesday.", source="team/decisions", metadata={"n": 1, "t": ["x"]})
    add(index, "Größe, 大きさ, 😀 and a \u0000 in between", source="Übersicht/日本")
    add(index, "is deleted", "is changed", source="notes")
    keyed = NewMemory(
        text="has a key",
        source="notes",
        key="k-1",
        metadata={"done": True},
        later_vectors=embedding_of("and a second window")[None],
    )
    index.upsert(keyed, embedding_of(keyed.text), request_id=fresh_request_id()).result()
    add(index.namespace("team.x"), "The deploy day is Friday.", source="team/decisions", key="k-1")
    add(index.namespace("emptied"), "is deleted")
    index.namespace("emptied").delete([MemoryId(7)], request_id=fresh_request_id()).result()
    expected = {"base": memories_in(index)}
    namespaces = {"base": namespaces_in(index)}
    names = {"base": index.backup("base").name}
    index.delete([MemoryId(3)], request_id=fresh_request_id()).result()
    patch, vectors = MemoryPatch(text="was changed"), embedding_of("was changed")[None]
    index.update(MemoryId(4), patch, vectors, request_id=fresh_request_id()).result()
    index.rename_namespace("team.x", "team.y", request_id=fresh_request_id()).result()
    add(index.namespace("team.x"), "another of that name")
    add(index.namespace("gone"), "is deleted with its namespace")
    index.delete_namespace("gone", request_id=fresh_request_id()).result()
    expected["delta"] = memories_in(index)
    namespaces["delta"] = namespaces_in(index)
    names["delta"] = index.backup("delta").name
    (last_id,) = add(index, "after the backups", source="notes")
    move = index.move("team.x", "team.z", source_prefix="notes", request_id=fresh_request_id())
    assert len(move.result().moved) == 1
    expected["live"] = memories_in(index)
    namespaces["live"] = namespaces_in(index)
    index.close()
    shutil.rmtree(directory / "workspace")
    for name in ("lock", "memories.db-wal", "memories.db-shm"):
        (directory / "data" / name).unlink(missing_ok=True)
    facts = {"memories": expected, "namespaces": namespaces, "backups": names, "last_id": last_id}
    content = json.dumps(facts, indent=1, ensure_ascii=False)
    (directory / EXPECTED_NAME).write_text(content + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
