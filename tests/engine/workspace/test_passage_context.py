"""What stands above a passage in its file: cut off its text, and yet not lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.memory_index import MemoryIndex
from engine.records import Chunk, MemoryPatch
from engine.workspace.chunking import chunk_file
from engine.workspace.passages import CONTEXT, context_of, text_in_context
from tests.engine.workspace.test_chunking import count_words
from tests.support.index_under_test import embeddings_of, fresh_request_id, open_index, search

OWNERS = ["Dana", "Kim", "Raj", "Ola", "Bo"]
TABLE = "# Servers\n\n| host | owner | rack |\n|---|---|---|\n" + "".join(
    f"| srv-{n:03} | {OWNERS[n % 5]} | r{n % 7} |\n" for n in range(120)
)


def chunks_of(path: str, text: str, *, max_pieces: int = 64) -> list[Chunk]:
    return chunk_file(path, text, count_pieces=count_words, max_pieces=max_pieces)


def contexts_of(path: str, text: str, *, max_pieces: int = 64) -> list[str]:
    chunks = chunks_of(path, text, max_pieces=max_pieces)
    return [context_of(chunk.source, chunk.metadata) for chunk in chunks]


def test_every_passage_of_a_table_but_the_first_has_its_heading_row_above_it() -> None:
    first, *others = chunks_of("a.md", TABLE)
    assert "| host | owner | rack |" in first.text
    assert first.metadata == {}
    assert len(others) > 10
    assert {chunk.metadata[CONTEXT] for chunk in others} == {"host | owner | rack"}
    assert not any("owner" in chunk.text for chunk in others)


@pytest.mark.parametrize("path", ["trip.md", "trip.txt"])
def test_an_item_has_the_items_that_it_hangs_from_above_it(path: str) -> None:
    bags = "".join(
        f"- Bag for the {place}\n"
        + "".join(f"  - thing {n} of the {place}, well wrapped\n" for n in range(12))
        for place in ("sea", "hills")
    )
    text = f"Pack these:\n\n{bags}"
    for chunk in chunks_of(path, text, max_pieces=48)[1:]:
        bag = next(line for line in chunk.text.split("\n") if "thing" in line)
        place = "sea" if "of the sea" in bag else "hills"
        assert "Pack these:" in chunk.metadata[CONTEXT]
        if f"Bag for the {place}" not in chunk.text:
            assert f"Bag for the {place}" in chunk.metadata[CONTEXT]


def test_an_item_cut_in_its_middle_has_its_own_first_line_above_the_rest() -> None:
    item = "- The long story\n" + "".join(f"  It went on for day {n} at sea.\n" for n in range(20))
    *_, last = contexts_of("a.md", f"- first\n{item}", max_pieces=48)
    assert last == "a\nThe long story"


def test_a_cut_fence_has_its_language_above_it() -> None:
    code = "\n".join(f"let value_{n} = compute({n});" for n in range(40))
    first, *others = chunks_of("a.md", f"# Use\n\n```rust\n{code}\n```\n")
    assert "```rust" in first.text
    assert {chunk.metadata[CONTEXT] for chunk in others} == {"rust"}


@pytest.mark.parametrize(
    ("block", "above"),
    [
        (
            "====  =====\nhost  owner\n====  =====\n"
            + "".join(f"s{n:03}  Dana{n}\n" for n in range(60))
            + "====  =====\n",
            "host | owner",
        ),
        (
            "+------+-------+\n| host | owner |\n+======+=======+\n"
            + "".join(f"| s{n:03} | Kim{n} |\n+------+-------+\n" for n in range(40)),
            "host | owner",
        ),
        (
            ".. code-block:: rust\n\n"
            + "".join(f"   let value_{n} = compute({n});\n" for n in range(40)),
            "code-block:: rust",
        ),
    ],
)
def test_restructured_text_keeps_what_stands_above_as_well(block: str, above: str) -> None:
    _, *others = contexts_of("a.rst", f"Use\n===\n\n{block}")
    assert others
    assert set(others) == {above}


def test_a_file_without_headings_is_told_by_its_name() -> None:
    assert contexts_of("notes/project-falcon.txt", "We fly on Monday.") == ["project falcon"]
    assert contexts_of("README.md", "We fly on Monday.") == [""]


def test_what_stands_before_or_without_a_title_is_told_by_it_or_by_the_name() -> None:
    assert contexts_of("a.md", "x\n# Falcon\ny\n## Costs\nz\n") == ["Falcon", "", ""]
    assert contexts_of("falcon.md", "# Crew\nx\n# Costs\ny\n") == ["falcon", "falcon"]


def test_what_is_too_long_to_stand_above_is_cut() -> None:
    columns = " | ".join(f"column{n}" for n in range(60))
    rows = "".join(" | ".join(f"v{n}" for n in range(60)) + "\n" for _ in range(4))
    for chunk in chunks_of("a.md", f"{columns}\n{'|'.join(['---'] * 60)}\n{rows}")[1:]:
        assert count_words(text_in_context(chunk)) <= 64
        assert "column0 | column1" in chunk.metadata[CONTEXT] or "column0" in chunk.text


_LINE = st.builds(
    lambda indent, start, words: indent + start + " ".join(words),
    st.sampled_from(["", "  ", "    ", "\t"]),
    st.sampled_from(["- ", "* ", "1. ", "(a) ", "", "| ", "```", "# "]),
    st.lists(st.sampled_from(["ab", "cd|", "ef:", "||", "\\|"]), max_size=9),
)


@pytest.mark.parametrize("path", ["some long name of a note.md", "b.rst"])
@given(lines=st.lists(_LINE, max_size=60), max_pieces=st.sampled_from([16, 24, 64]))
@settings(max_examples=100, deadline=None)
def test_no_passage_is_too_long_with_its_context(
    path: str, lines: list[str], max_pieces: int
) -> None:
    for chunk in chunks_of(path, "\n".join(lines), max_pieces=max_pieces):
        assert count_words(text_in_context(chunk)) <= max_pieces


# In the index


def build(index: MemoryIndex) -> tuple[int, int, int]:
    plan = index.plan_build(None, replace_all=False)
    says = [text_in_context(plan.chunks[at]) for at in plan.to_embed]
    vectors = embeddings_of(says or ["none"])[: len(says)]
    report = index.apply_build(plan, vectors, request_id=fresh_request_id())
    return report.memories_added, report.memories_removed, report.unchanged


def test_a_row_is_found_by_its_table_s_heading_also_after_a_restart(tmp_path: Path) -> None:
    index = open_index(tmp_path, max_pieces=64)
    (tmp_path / "workspace" / "servers.md").write_text(TABLE)
    build(index)
    for _ in range(2):
        best = search(index, "owner of srv-077", hybrid=True)[0]
        assert "| srv-077 | Raj |" in best.memory.text
        by_words = search(index, "owner", vector_weight=0.0, k=100)
        assert len([hit for hit in by_words if (hit.bm25_score or 0) > 0]) > 10
        index.close()
        (tmp_path / "data" / "postings.npz").unlink(missing_ok=True)
        index = open_index(tmp_path, max_pieces=64)
    index.close()


def test_a_passage_under_another_heading_row_is_embedded_anew_and_keeps_its_id(
    tmp_path: Path,
) -> None:
    index = open_index(tmp_path, max_pieces=64)
    file = tmp_path / "workspace" / "servers.md"
    file.write_text(TABLE)
    n_passages = build(index)[0]
    assert build(index) == (0, 0, n_passages)
    [before, *_] = search(index, "srv-077")
    noted = MemoryPatch(metadata={"checked": True})
    index.update(before.memory.id, noted, None, request_id=fresh_request_id()).result()

    file.write_text(TABLE.replace("| owner |", "| keeper |"))
    added, removed, unchanged = build(index)

    assert (added, removed, unchanged) == (n_passages, n_passages, 0)
    [best, *_] = search(index, "keeper of srv-077")
    assert best.memory.id == before.memory.id
    assert best.memory.metadata == {"checked": True, CONTEXT: "host | keeper | rack"}
    [same, *_] = search(index, text_in_context(best.memory), hybrid=False)
    assert same.memory.id == best.memory.id
    assert same.similarity == pytest.approx(1)
    words = search(index, "owner", vector_weight=0.0, k=100)
    assert not any(hit.bm25_score for hit in words)
    index.close()


def test_who_changes_a_passage_s_metadata_does_not_change_its_context(tmp_path: Path) -> None:
    index = open_index(tmp_path, max_pieces=64)
    (tmp_path / "workspace" / "servers.md").write_text(TABLE)
    build(index)
    [best, *_] = search(index, "srv-077")
    patch = MemoryPatch(metadata={CONTEXT: "other", "a": 1})
    changed = index.update(best.memory.id, patch, None, request_id=fresh_request_id()).result()
    assert changed.metadata == {CONTEXT: "host | owner | rack", "a": 1}
    index.close()


def test_only_a_passage_has_a_context() -> None:
    assert context_of("notes", {CONTEXT: "x"}) == ""
    assert context_of("a.md:chunk_0", {CONTEXT: 3}) == ""
    assert context_of("a.md:chunk_0", {CONTEXT: "x"}) == "x"
