"""What becomes of each kind of file: memories with text, source, key and metadata, or a reason."""

from __future__ import annotations

import base64
import gzip
import io
import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from engine.model.files import default_model_dir
from engine.model.tokeniser import Tokeniser
from engine.workspace.chunking import chunk_file
from scripts.cli.errors import CliError, UsageError
from scripts.cli.readers import SUFFIXES, Format, read
from scripts.cli.readers.identity import owner, path_name
from scripts.cli.readers.inputs import MAX_LINE_BYTES, find_inputs
from scripts.cli.readers.records import Memory, Options, Unreadable


def records(
    *paths: Path | str, format: Format = Format.AUTO, **options: Any
) -> tuple[list[dict[str, Any]], list[str]]:
    """The lines to import, and the reasons of what could not be read."""
    good: list[dict[str, Any]] = []
    bad: list[str] = []
    for file in find_inputs([str(path) for path in paths], SUFFIXES[format]):
        for record in read(file, format, Options(**options)):
            if isinstance(record, Memory):
                good.append(record.line)
            else:
                assert isinstance(record, Unreadable)
                bad.append(f"{record.origin}: {record.reason}")
    return good, bad


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def test_a_text_tree_gives_the_passages_that_a_build_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "# Title\n\n" + "A sentence that says something. " * 200
    (tmp_path / "notes" / "deep").mkdir(parents=True)
    (tmp_path / "notes" / "deep" / "long.md").write_text(text)
    (tmp_path / "notes" / ".git").mkdir()
    (tmp_path / "notes" / ".git" / "x.md").write_text("hidden")
    (tmp_path / "notes" / "photo.png").write_bytes(b"\x89PNG")
    monkeypatch.chdir(tmp_path)

    found, problems = records("notes")

    count = Tokeniser(default_model_dir({}, Path.home())).count_pieces
    named = path_name(tmp_path / "notes" / "deep" / "long.md")
    expected = chunk_file(named, text, count_pieces=count)
    assert [(m["source"], m["text"]) for m in found] == [(c.source, c.text) for c in expected]
    assert len(found) > 5
    assert problems == []
    [first, *_], _ = records("notes", source="mine/")
    assert first["source"] == "mine/deep/long.md:chunk_0"


def test_a_file_has_one_name_and_one_owner_however_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    path = home / "work" / "notes" / "a.md"
    path.parent.mkdir(parents=True)
    path.write_text("words")
    (tmp_path / "link.md").symlink_to(path)
    monkeypatch.setenv("HOME", str(home))

    given: list[tuple[Path, Path | str]] = [
        (tmp_path, path),
        (tmp_path, path.parent),
        (tmp_path, home),
        (tmp_path, "link.md"),
        (path.parent, "."),
        (path.parent, "a.md"),
        (home, "*/notes/*.md"),
        (home, "~/work"),
    ]
    for directory, argument in given:
        monkeypatch.chdir(directory)
        [memory], _ = records(argument)
        assert (memory["source"], memory["key"]) == ("~/work/notes/a.md:chunk_0", owner())

    monkeypatch.setenv("HOME", str(tmp_path / "another"))
    [memory], _ = records(path)
    assert memory["source"] == f"{path.resolve()}:chunk_0"


def test_files_of_one_name_in_different_directories_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b", "c"):
        (tmp_path / "col" / name).mkdir(parents=True)
        (tmp_path / "col" / name / "README.md").write_text(f"about {name}")

    for arguments in (["col/*/README.md"], ["col/b/README.md", "col/c/README.md"], ["col"]):
        found, _ = records(*arguments)
        assert len({memory["source"] for memory in found}) == 2
    named, _ = records("col/*/README.md", source="x/")
    assert [m["source"] for m in named] == ["x/b/README.md:chunk_0", "x/c/README.md:chunk_0"]


def test_what_is_no_text_is_named_and_not_sent(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    (tmp_path / "nul.txt").write_bytes(b"a\0b")
    (tmp_path / "good.txt").write_text("good")
    found, problems = records(tmp_path)
    assert [m["text"] for m in found] == ["good"]
    assert [problem.rpartition("/")[2] for problem in problems] == [
        "latin.txt: not UTF-8 text",
        "nul.txt: holds NUL characters, so it is no text",
    ]


def test_a_row_with_more_cells_than_columns_is_named_and_not_cut(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_text('text,source\nlikes apples, pears,ann\n"likes figs, dates",ben\n')
    found, problems = records(path)
    assert [m["text"] for m in found] == ["likes figs, dates"]
    assert problems == [f"{path}, line 2: 3 cells for 2 columns; quote the commas"]


def test_globs_and_files_named_twice_are_read_once(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "c.log"):
        (tmp_path / name).write_text(name)
    found, _ = records(tmp_path / "*.txt", tmp_path / "a.txt", tmp_path)
    assert [m["text"] for m in found] == ["a.txt", "b.txt"]
    with pytest.raises(UsageError, match="names no file"):
        records(tmp_path / "*.md")


def test_lines_keep_what_import_knows_and_put_the_rest_into_metadata(tmp_path: Path) -> None:
    vector = base64.b64encode(b"\0" * 1536).decode()
    path = write(
        tmp_path / "turns.jsonl",
        {"text": "one", "source": "mine", "speaker": "ann", "metadata": {"n": 1}, "id": 9},
        {"text": "two", "key": "k", "timestamp": "2026-01-01T00:00:00Z", "embedding": vector},
        {"_id": "d7", "title": "t", "text": "three"},
    )
    found, problems = records(path)
    assert problems == []
    assert found == [
        {"text": "one", "source": "mine", "metadata": {"speaker": "ann", "n": 1}},
        {
            "text": "two",
            "source": f"{path_name(path)}:2",
            "key": "k",
            "timestamp": "2026-01-01T00:00:00Z",
            "embedding": vector,
        },
        {"text": "three", "source": f"{path_name(path)}/d7", "metadata": {"title": "t"}},
    ]
    assert [m["source"] for m in records(path, source="p/")[0]] == [
        "p/mine",
        "p/turns.jsonl:2",
        "p/turns.jsonl/d7",
    ]


def test_bad_lines_are_named_with_their_number_and_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    long = b'{"text": "' + b"x" * MAX_LINE_BYTES + b'"}\n'
    path.write_bytes(
        b'{"text": "a"}\n\n{"text"\n[1]\n{"text": " "}\n{"text": "\xff"}\n'
        + long
        + b'{"text": "c", "metadata": 7}\n{"text": "z"}'
    )
    found, problems = records(path)
    assert [m["text"] for m in found] == ["a", "z"]
    assert [problem.split(", ", 1)[1].split(":")[0] for problem in problems] == [
        f"line {n}" for n in (3, 4, 5, 6, 7, 8)
    ]


def test_an_export_that_breaks_off_or_lacks_a_line_is_noticed(tmp_path: Path) -> None:
    header = {"type": "header", "format": 1, "total": 2}
    one, two = {"text": "one", "source": "s", "id": 1}, {"text": "two", "source": "s", "id": 2}
    whole = write(tmp_path / "whole.jsonl", header, one, two, {"type": "footer", "count": 2})
    short = write(tmp_path / "short.jsonl", header, one)
    holed = write(tmp_path / "holed.jsonl", header, one, {"type": "footer", "count": 2})
    assert records(whole) == ([{"text": t, "source": "s"} for t in ("one", "two")], [])
    assert "breaks off" in records(short)[1][0]
    assert "had 2 memories, here are 1" in records(holed)[1][0]


def test_packed_files_are_unpacked_and_a_broken_archive_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "packed"}\n' * 1000))
    found, _ = records(path)
    assert len(found) == 1000
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CliError, match="cannot be read"):
        records(path)


def test_a_table_s_columns_become_text_source_key_and_metadata(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_text(
        '﻿id,Text,who,empty\n1,"likes ""tea"", and\nmilk",ann,\n2,plays the cello,ben,\n3,,cat,\n'
    )
    found, problems = records(path, source_column="who", key_column="id")
    assert found == [
        {"text": 'likes "tea", and\nmilk', "source": "ann", "key": "1"},
        {"text": "plays the cello", "source": "ben", "key": "2"},
    ]
    assert problems == [f"{path}, line 5: nothing in column 'Text'"]
    [first, _], _ = records(path)
    assert first["source"] == f"{path_name(path)}:3"
    assert first["metadata"] == {"id": "1", "who": "ann"}
    with pytest.raises(UsageError, match="no column 'nope'"):
        records(path, text_column="nope")


def test_a_table_without_a_text_column_says_which_there_are(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    path.write_text("a\tb\n1\t2\n")
    with pytest.raises(UsageError, match="--text-column: a, b"):
        records(path)
    assert records(path, text_column="b")[0][0]["text"] == "2"


GRAPH: list[dict[str, Any]] = [
    {
        "type": "entity",
        "name": "Ann",
        "entityType": "person",
        "observations": ["Speaks Spanish", "Graduated in 2019"],
    },
    {"type": "entity", "name": "Acme", "entityType": "firm", "observations": []},
    {"type": "relation", "from": "Ann", "to": "Acme", "relationType": "works_at"},
]


@pytest.mark.parametrize("shape", ["memory.jsonl", "memory.json", "graph.json"])
def test_the_mcp_memory_server_s_file_gives_its_facts(tmp_path: Path, shape: str) -> None:
    path = tmp_path / shape
    if shape == "graph.json":  # what its tool read_graph answers
        untyped = [{k: v for k, v in item.items() if k != "type"} for item in GRAPH]
        graph = {"entities": untyped[:2], "relations": untyped[2:]}
        path.write_text(json.dumps(graph, indent=2))
    else:
        path.write_text("\n".join(map(json.dumps, GRAPH)))
    found, problems = records(path)
    assert problems == []
    assert [(m["source"], m["text"], m["metadata"]) for m in found] == [
        ("mcp-memory/Ann", "Ann: Speaks Spanish", {"entity_type": "person"}),
        ("mcp-memory/Ann", "Ann: Graduated in 2019", {"entity_type": "person"}),
        ("mcp-memory/Acme", "Acme (firm)", {"entity_type": "firm"}),
        ("mcp-memory/Ann", "Ann works_at Acme", {"relation": "works_at", "to": "Acme"}),
    ]
    assert len({(m["source"], m["key"]) for m in found}) == 4
    assert records(path)[0] == found


def test_broken_lines_of_a_graph_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "memory.jsonl", GRAPH[0], {"type": "entity", "name": "X"}, {"type": 3})
    found, problems = records(path)
    assert len(found) == 2
    assert [p.split(": ")[0].rpartition("/")[2] for p in problems] == [
        "memory.jsonl, line 2",
        "memory.jsonl, line 3",
    ]


MEM0 = {
    "id": "3c90c3cc-0d44-4b50-8888-8dd25736052a",
    "memory": "Dev works at TechCorp",
    "user_id": "dev",
    "agent_id": None,
    "hash": "x",
    "metadata": {"type": "professional"},
    "created_at": "2023-11-07T05:31:56Z",
    "updated_at": "2023-11-08T05:31:56.123456-07:00",
}


@pytest.mark.parametrize("shape", ["results", "list", "lines"])
def test_mem0_s_memories_keep_id_owner_times_and_metadata(tmp_path: Path, shape: str) -> None:
    path = tmp_path / ("mem0.jsonl" if shape == "lines" else "mem0.json")
    document: object = {"results": [MEM0], "count": 1} if shape == "results" else [MEM0]
    path.write_text(json.dumps(MEM0 if shape == "lines" else document))
    found, problems = records(path)
    assert problems == []
    assert found == [
        {
            "text": "Dev works at TechCorp",
            "source": "mem0/dev",
            "key": MEM0["id"],
            "timestamp": "2023-11-07T05:31:56+00:00",
            "updated_at": "2023-11-08T05:31:56.123456-07:00",
            "metadata": {"user_id": "dev", "type": "professional"},
            "deduplicate": False,
        }
    ]


COLLECTION = {
    "ids": ["id1", "id2", "id3"],
    "documents": ["a pineapple", "oranges", None],
    "metadatas": [{"page": 10, "good": True, "weight": 1.5, "kind": "fruit"}, None, None],
    "embeddings": None,
    "included": ["metadatas", "documents"],
}
FRUIT = [
    {
        "text": "a pineapple",
        "source": "chroma/fruit",
        "key": "id1",
        "deduplicate": False,
        "metadata": {"page": 10, "good": True, "weight": 1.5, "kind": "fruit"},
    },
    {"text": "oranges", "source": "chroma/fruit", "key": "id2", "deduplicate": False},
]


def test_a_collection_of_chroma_as_json(tmp_path: Path) -> None:
    path = tmp_path / "fruit.json"
    for indent in (None, 2):
        path.write_text(json.dumps(COLLECTION, indent=indent))
        found, problems = records(path)
        named = f"chroma/{path_name(path).removesuffix('.json')}"
        assert found == [{**memory, "source": named} for memory in FRUIT]
        assert problems == [f"{path}, id3: it has no document, only an embedding"]
    path.write_text(json.dumps({**COLLECTION, "ids": ["id1"]}))
    with pytest.raises(CliError, match="no collection of Chroma"):
        records(path)


def chroma_database(path: Path) -> Path:
    """The tables as Chroma's migrations make them."""
    path.parent.mkdir(exist_ok=True)
    with sqlite3.connect(path) as database:
        database.executescript(
            """
            CREATE TABLE collections (id TEXT PRIMARY KEY, name TEXT NOT NULL);
            CREATE TABLE segments (id TEXT PRIMARY KEY, type TEXT, scope TEXT, collection TEXT);
            CREATE TABLE embeddings (id INTEGER PRIMARY KEY, segment_id TEXT NOT NULL,
                embedding_id TEXT NOT NULL, seq_id BLOB NOT NULL, created_at TIMESTAMP);
            CREATE TABLE embedding_metadata (id INTEGER, key TEXT NOT NULL, string_value TEXT,
                int_value INTEGER, float_value REAL, bool_value INTEGER, PRIMARY KEY (id, key));
            INSERT INTO collections VALUES ('c', 'fruit');
            INSERT INTO segments VALUES ('v', 'vector', 'VECTOR', 'c'), ('m', 'x', 'METADATA', 'c');
            INSERT INTO embeddings VALUES (1, 'm', 'id1', x'01', 0), (2, 'm', 'id2', x'02',
                '2025-02-03 04:05:06'),
                (3, 'm', 'id3', x'03', 0);
            INSERT INTO embedding_metadata VALUES
                (1, 'page', NULL, 10, NULL, NULL), (1, 'good', NULL, NULL, NULL, 1),
                (1, 'weight', NULL, NULL, 1.5, NULL), (1, 'kind', 'fruit', NULL, NULL, NULL),
                (1, 'chroma:document', 'a pineapple', NULL, NULL, NULL),
                (2, 'chroma:document', 'oranges', NULL, NULL, NULL);
            """
        )
    database.close()
    return path


def test_a_database_of_chroma_is_read_and_not_changed(tmp_path: Path) -> None:
    path = chroma_database(tmp_path / "chroma.sqlite3")
    before = path.read_bytes()
    found, problems = records(path)
    place = {"source": f"chroma/{path_name(tmp_path)}/fruit"}
    assert found == [FRUIT[0] | place, FRUIT[1] | place | {"timestamp": "2025-02-03T04:05:06"}]
    assert len(problems) == 1
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_collections_of_one_name_in_two_databases_of_chroma_are_two(tmp_path: Path) -> None:
    paths = [chroma_database(tmp_path / name / "chroma.sqlite3") for name in ("a", "b")]
    sources = {memory["source"] for path in paths for memory in records(path)[0]}
    assert sources == {f"chroma/{path_name(tmp_path / name)}/fruit" for name in ("a", "b")}
    below = {memory["source"] for memory in records(tmp_path, source="mine/")[0]}
    assert below == {"mine/a/fruit", "mine/b/fruit"}
    assert {memory["source"] for memory in records(paths[0], source="mine/")[0]} == {"mine/fruit"}


def test_stdin_is_told_by_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    def given(content: bytes) -> list[dict[str, Any]]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        return records("-")[0]

    assert given(b'{"text": "a", "source": "s"}\n')[0]["source"] == "s"
    assert given(b"Just words.\n")[0]["source"] == "stdin:chunk_0"
    assert given(json.dumps(GRAPH[2]).encode())[0]["source"] == "mcp-memory/Ann"


def test_a_file_of_an_unknown_kind_is_asked_about(tmp_path: Path) -> None:
    path = tmp_path / "notes.org"
    path.write_text("* heading")
    with pytest.raises(UsageError, match="--format"):
        records(path)
    assert records(path, format=Format.TEXT)[0][0]["text"] == "* heading"


CREATED = "2025-02-03T04:05:06+00:00"
ORIGINAL: list[dict[str, Any]] = [
    {
        "text": "Ann leads the migration",
        "source": "work/atlas",
        "created_at": CREATED,
        "updated_at": "2025-02-04T04:05:06+00:00",
        "custom_fields": {"priority": "high"},
    },
    {"text": "The cat is called Miro", "source": "home", "created_at": CREATED, "pinned": True},
]


def test_an_export_of_the_original_and_its_metadata_file_say_the_same(tmp_path: Path) -> None:
    head = {"_header": True, "count": 2, "version": "5.0.0", "exported_at": CREATED}
    exported, problems = records(write(tmp_path / "memories.jsonl", head, *ORIGINAL))
    assert problems == []
    (first, second) = exported
    assert first == {
        "text": "Ann leads the migration",
        "source": "work/atlas",
        "key": first["key"],
        "timestamp": CREATED,
        "updated_at": "2025-02-04T04:05:06+00:00",
        "metadata": {"priority": "high"},
        "deduplicate": False,
    }
    assert second["metadata"] == {"pinned": True}

    rows = [{"id": n, **row, "timestamp": row["created_at"]} for n, row in enumerate(ORIGINAL)]
    kept = tmp_path / "metadata.json"
    for indent in (None, 2):
        kept.write_text(json.dumps(rows, indent=indent))
        found, _ = records(kept)
        assert [(m["source"], m["key"]) for m in found] == [
            (m["source"], m["key"]) for m in exported
        ]
        assert {m["timestamp"] for m in found} == {CREATED}


def test_an_export_of_the_original_that_lacks_lines_is_noticed(tmp_path: Path) -> None:
    head = {"_header": True, "count": 3}
    found, problems = records(write(tmp_path / "memories.jsonl", head, *ORIGINAL))
    assert len(found) == 2
    assert "had 3 memories, here are 2" in problems[0]


SERVICE_MEMORY = {
    "content": "Deploys happen on Tuesdays",
    "content_hash": "abc123",
    "tags": ["ops", "release"],
    "memory_type": "decision",
    "metadata": {"project": "atlas"},
    "created_at": 1738555506.5,
    "updated_at": 1738641906.0,
}
OF_SERVICE = {
    "text": "Deploys happen on Tuesdays",
    "source": "mcp-memory-service/default",
    "key": "abc123",
    "timestamp": "2025-02-03T04:05:06.500000+00:00",
    "updated_at": "2025-02-04T04:05:06+00:00",
    "metadata": {"project": "atlas", "tags": ["ops", "release"], "memory_type": "decision"},
    "deduplicate": False,
}


def memory_service_database(path: Path) -> Path:
    """As its storage/sqlite_vec.py makes it, the vectors' virtual table left out."""
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute(
            "CREATE TABLE memories (id INTEGER PRIMARY KEY, content_hash TEXT UNIQUE NOT NULL, "
            "content TEXT NOT NULL, tags TEXT, memory_type TEXT, metadata TEXT, created_at REAL, "
            "updated_at REAL, created_at_iso TEXT, updated_at_iso TEXT, deleted_at REAL, "
            "store TEXT DEFAULT 'default')"
        )
        memory = SERVICE_MEMORY | {"tags": "ops,release", "metadata": '{"project": "atlas"}'}
        for row in (memory, memory | {"content_hash": "gone", "deleted_at": 1738641906.0}):
            names, marks = ", ".join(row), ", ".join("?" * len(row))
            database.execute(f"INSERT INTO memories ({names}) VALUES ({marks})", list(row.values()))
    return path


def test_mcp_memory_service_s_database_and_export_say_the_same(tmp_path: Path) -> None:
    path = memory_service_database(tmp_path / "sqlite_vec.db")
    before = path.read_bytes()
    assert records(path) == ([OF_SERVICE], [])
    assert records(tmp_path) == ([OF_SERVICE], [])  # found in a directory by its name
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    export = tmp_path / "export.json"
    for indent in (None, 2):
        document = {"export_metadata": {"total_memories": 1}, "memories": [SERVICE_MEMORY]}
        export.write_text(json.dumps(document, indent=indent))
        assert records(export) == ([OF_SERVICE], [])


def said(name: str, role: str, parent: str | None, *parts: object, **more: object) -> Any:
    message = {
        "id": f"m-{name}",
        "author": {"role": role},
        "create_time": 1738555506.0 + int(name),
        "content": {"content_type": "text", "parts": list(parts)},
        "recipient": "all",
        "metadata": {},
        **more,
    }
    return {"id": name, "parent": parent, "children": [], "message": message}


CHATGPT = {
    "title": "Sourdough",
    "conversation_id": "c-1",
    "create_time": 1738555500.0,
    "current_node": "7",
    "mapping": {
        "root": {"id": "root", "parent": None, "children": ["0"], "message": None},
        "0": said("0", "system", "root", ""),
        "1": said("1", "user", "0", "How warm should it be?"),
        "2": said("2", "assistant", "1", "An answer that was thrown away."),
        "3": said("3", "assistant", "1", "search('dough')", recipient="web"),
        "4": said("4", "tool", "3", "a page"),
        "5": said("5", "assistant", "4", "About 26 degrees."),
        "6": said("6", "user", "5", {"content_type": "image_asset_pointer"}, "And this one?"),
        "7": said("7", "assistant", "6", "Too dry."),
    },
}
CLAUDE = {
    "uuid": "c-2",
    "name": "Bicycles",
    "created_at": CREATED,
    "chat_messages": [
        {
            "uuid": "m-1",
            "sender": "human",
            "text": "Which oil?",
            "content": [{"type": "text", "text": "Which oil?"}],
            "created_at": CREATED,
        },
        {
            "uuid": "m-2",
            "sender": "assistant",
            "text": "old",
            "content": [{"type": "thinking", "text": "hm"}, {"type": "text", "text": "Dry lube."}],
            "created_at": "2025-02-03T04:06:00+00:00",
        },
    ],
}


def test_conversations_of_chatgpt_are_read_along_the_branch_that_was_seen(tmp_path: Path) -> None:
    path = tmp_path / "conversations.json"
    path.write_text(json.dumps([CHATGPT, {"title": "broken"}]))
    found, problems = records(tmp_path)
    assert [(m["text"], m["source"], m["key"], m["timestamp"]) for m in found] == [
        (
            "Sourdough\n\nUser: How warm should it be?\n\nAssistant: About 26 degrees.",
            "chatgpt/c-1",
            "m-1",
            "2025-02-03T04:05:07+00:00",
        ),
        (
            "Sourdough\n\nUser: And this one?\n\nAssistant: Too dry.",
            "chatgpt/c-1",
            "m-6",
            "2025-02-03T04:05:12+00:00",
        ),
    ]
    assert found[0]["metadata"] == {"title": "Sourdough"}
    assert "conversation 2" in problems[0]


def test_conversations_of_claude_give_questions_with_their_answers(tmp_path: Path) -> None:
    path = tmp_path / "conversations.json"
    for indent in (None, 2):
        path.write_text(json.dumps([CLAUDE], indent=indent))
        assert records(path) == (
            [
                {
                    "text": "Bicycles\n\nUser: Which oil?\n\nAssistant: Dry lube.",
                    "source": "claude/c-2",
                    "key": "m-1",
                    "timestamp": CREATED,
                    "updated_at": "2025-02-03T04:06:00+00:00",
                    "metadata": {"title": "Bicycles"},
                    "deduplicate": False,
                }
            ],
            [],
        )


@pytest.mark.parametrize("name", ["content", "memory", "document", "text"])
@pytest.mark.parametrize("shape", ["lines", "list", "named"])
def test_the_text_of_a_memory_has_many_names(tmp_path: Path, name: str, shape: str) -> None:
    rows = [{name: "one", "created_at": 1738555506}, {name: "two", "created_at": CREATED}]
    path = tmp_path / ("x.jsonl" if shape == "lines" else "x.json")
    if shape == "lines":
        write(path, *rows)
    else:
        path.write_text(json.dumps(rows if shape == "list" else {"memories": rows}, indent=2))
    found, problems = records(path)
    assert problems == []
    assert [(m["text"], m["timestamp"]) for m in found] == [("one", CREATED), ("two", CREATED)]


def test_the_columns_of_json_can_be_named(tmp_path: Path) -> None:
    rows = [{"text": "short", "fact": "the whole", "where": "w", "nr": 7}]
    path = tmp_path / "x.json"
    path.write_text(json.dumps(rows))
    wanted = {"text": "the whole", "source": "w", "key": "7", "metadata": {"text": "short"}}
    columns: dict[str, Any] = {"text_column": "fact", "source_column": "where"}
    columns["key_column"] = "nr"
    assert records(path, **columns) == ([wanted], [])
    assert records(write(tmp_path / "x.jsonl", *rows), **columns) == ([wanted], [])


def test_a_list_s_own_ids_are_keys_and_strings_are_memories(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps([{"id": "a1", "text": "one", "embedding": [1]}, "two", 3]))
    found, problems = records(path)
    assert found == [
        {"text": "one", "source": path_name(path), "key": "a1", "deduplicate": False},
        {"text": "two", "source": f"{path_name(path)}:2"},
    ]
    assert "memory 3" in problems[0]


def test_a_database_is_told_by_its_tables(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "other.db")) as database:
        database.execute("CREATE TABLE shop (id INTEGER)")
    with pytest.raises(UsageError, match="--format"):
        records(tmp_path / "other.db")


def test_collections_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for side in ("left", "right"):
        (tmp_path / side).mkdir()
        (tmp_path / side / "export.json").write_text(json.dumps(COLLECTION))
    found, _ = records(*(tmp_path / side / "export.json" for side in ("left", "right")))
    assert len({memory["source"] for memory in found}) == 2


def test_an_unclosed_quote_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('text,created_at\n"two\nlines",2025-02-03\n"open,2025-02-03\nswallowed,x\n')
    found, problems = records(path)
    assert [(m["text"], m["timestamp"]) for m in found] == [("two\nlines", "2025-02-03T00:00:00")]
    assert problems == [f"{path}, line 4: a quote opens here and is never closed"]
    path.write_text('text,"note\nx,y\n')
    assert "line 1: a quote" in records(path)[1][0]


@pytest.mark.parametrize("suffix", ["txt", "csv", "jsonl", "json"])
def test_utf_16_is_read_whatever_the_kind(tmp_path: Path, suffix: str) -> None:
    content = {"txt": "größer", "csv": "text\ngrößer\n"}.get(suffix, '{"text": "größer"}')
    path = tmp_path / f"wide.{suffix}"
    path.write_bytes(content.encode("utf-16"))
    found, problems = records(path)
    assert ([m["text"] for m in found], problems) == (["größer"], [])
    path.write_bytes(content.encode("utf-16")[:-1])
    with pytest.raises(CliError, match="UTF-16"):
        records(path)


def test_a_note_s_front_matter_is_sent_as_metadata(tmp_path: Path) -> None:
    path = tmp_path / "n.md"
    path.write_text("---\ntitle: Tides\n---\nTwice a day, see [[Moon|the moon]].\n")
    [memory], _ = records(path)
    assert memory["text"] == "Tides\n\nTwice a day, see the moon."
    assert memory["metadata"] == {"title": "Tides"}
