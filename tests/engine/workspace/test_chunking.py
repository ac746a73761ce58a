"""Chunking: nothing is lost, nothing is too long, structure stays readable."""

from __future__ import annotations

import json
import os
import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.model.files import default_model_dir
from engine.model.tokeniser import MAX_PIECES, Tokeniser
from engine.workspace.chunking import MIN_MAX_PIECES, chunk_file

LOREM = "The archive keeps letters of {n} sailors. Each of them wrote home in the year {n}! "


def count_words(text: str) -> int:
    """Words and punctuation marks, and two special pieces: a stand-in for the tokenizer."""
    return len(re.findall(r"\w+|[^\w\s]", text)) + 2


def words(text: str) -> set[str]:
    return set(re.findall(r"[^\W_]+", text))


def chunk(path: str, text: str, *, max_pieces: int = 64) -> list[str]:
    chunks = chunk_file(path, text, count_pieces=count_words, max_pieces=max_pieces)
    return [c.text for c in chunks]


_WORD = st.text(
    st.characters(codec="utf-8", categories=["Lu", "Ll", "Nd", "Lo"]), min_size=1, max_size=12
)
_SENTENCE = st.lists(_WORD, min_size=1, max_size=12).map(" ".join)
_MARKDOWN_STARTS = [
    "# ",
    "## ",
    "###### ",
    "- ",
    "* ",
    "1. ",
    "> ",
    "    ",
    "```",
    "```py ",
    "~~~~",
]
_OTHER_STARTS = ["---", "===", "====", "****", "+++", "| a | ", "<!-- ", "<div>", "[ref]: ", ".. "]
_SPACES = ["", "\t", "  ", "\r", "\\", "::", ".. code-block:: "]
_LINE_START = st.sampled_from([*_MARKDOWN_STARTS, *_OTHER_STARTS, *_SPACES])
_LINE = st.builds(
    lambda start, text, end: start + text + end,
    _LINE_START,
    st.one_of(_SENTENCE, st.just("")),
    st.sampled_from(["", "", "", ".", "::", " #", "|", " -->", "\n", "\n\n", "\r\n"]),
)
_FILE = st.lists(_LINE, max_size=40).map("\n".join)


@pytest.mark.parametrize("path", ["a.md", "a.rst", "a.txt"])
@given(text=st.one_of(_FILE, st.text(max_size=300)), max_pieces=st.sampled_from([16, 24, 64]))
@settings(max_examples=150, deadline=None)
def test_every_word_is_in_some_chunk_and_no_chunk_is_too_long(
    path: str, text: str, max_pieces: int
) -> None:
    chunks = chunk(path, text, max_pieces=max_pieces)
    assert all(count_words(c) <= max_pieces for c in chunks)
    assert all(c.strip() for c in chunks)
    short_enough = (run for run in text.split() if count_words(run) <= max_pieces // 2)
    assert words(" ".join(short_enough)) <= words("\n".join(chunks))
    assert chunks == chunk(path, text, max_pieces=max_pieces)


def count_awkwardly(text: str) -> int:
    """Joining may cost more than the parts: every chunk must be counted as a whole."""
    n = len(re.findall(r"\w{1,4}|[^\w\s]", text))
    return n + n // 7 + 2


@given(text=_FILE)
@settings(max_examples=150, deadline=None)
def test_the_limit_holds_when_pieces_do_not_add_up(text: str) -> None:
    chunks = chunk_file("a.md", text, count_pieces=count_awkwardly, max_pieces=24)
    assert all(count_awkwardly(c.text) <= 24 for c in chunks)


def test_sources_number_the_chunks_of_the_relative_path() -> None:
    chunks = chunk_file("docs/a b.md", "# A\nx\n# B\ny\n", count_pieces=count_words)
    assert [(chunk.source, chunk.text) for chunk in chunks] == [
        ("docs/a b.md:chunk_0", "A\n\nx"),
        ("docs/a b.md:chunk_1", "B\n\ny"),
    ]


def test_headings_of_all_levels_give_their_path() -> None:
    text = "# One\na\n## Two\nb\n### 3\n#### 4\n##### 5\n###### Six ######\nc\n## Again\nd\n"
    assert chunk("a.md", text) == [
        "One\n\na",
        "One > Two\n\nb",
        "One > Two > 3 > 4 > 5 > Six\n\nc",
        "One > Again\n\nd",
    ]


def test_setext_headings_start_sections() -> None:
    assert chunk("a.md", "Big\n===\na\n\nSmall\n---\nb\n") == ["Big\n\na", "Big > Small\n\nb"]


def test_a_heading_without_body_is_still_in_a_chunk() -> None:
    assert chunk("a.md", "# T\n## Empty\n## Full\nx\n## Last\n") == [
        "T > Empty",
        "T > Full\n\nx",
        "T > Last",
    ]


@pytest.mark.parametrize(
    "fence",
    [
        "```\n# no\n```",
        "```python title=x\n# no\n```",
        "   ```\n   # no\n   ```",
        "````\n```\n# no\n```\n````",
        "~~~\n# no\n```\n~~~",
        "```\n# no, and never closed\n\n## no",
        "    # no, indented",
        "<!-- hidden\n# no\n-->",
        "- item\n\n  # no, inside a list",
        "> # no, inside a quotation",
    ],
)
def test_what_looks_like_a_heading_inside_another_block_is_none(fence: str) -> None:
    assert chunk("a.md", f"# H\n\n{fence}\n") == [f"H\n\n{fence.strip(chr(10))}"]


def test_a_fence_that_fits_a_chunk_is_kept_whole() -> None:
    fence = "```\n" + "call(1)\n\n" * 8 + "```"
    chunks = chunk("a.md", LOREM.format(n=7) * 3 + f"\n\n{fence}\n", max_pieces=64)
    assert any(fence in c for c in chunks)


def test_a_long_fence_is_split_at_lines() -> None:
    lines = [f"value_{n} = compute({n}, {n})" for n in range(60)]
    chunks = chunk("a.md", "```py\n" + "\n".join(lines) + "\n```\n")
    assert len(chunks) > 3
    inside = [line for c in chunks for line in c.split("\n") if line and "```" not in line]
    assert set(inside) == set(lines)


def test_short_paragraphs_under_one_heading_share_a_chunk() -> None:
    assert chunk("a.md", "# H\n\nYes.\n\nNo.\n\n1\n") == ["H\n\nYes.\n\nNo.\n\n1"]


def test_pieces_of_a_long_paragraph_overlap_by_whole_sentences() -> None:
    sentences = [f"Sentence {n} speaks about the harbour and about ship {n}." for n in range(80)]
    chunks = chunk("a.md", "# H\n\n" + " ".join(sentences), max_pieces=256)
    assert len(chunks) > 2
    for before, after in pairwise(chunks):
        first = after.split("\n\n")[1].split(". ")[0]
        shared = before[before.index(first) :]
        assert after.removeprefix("H\n\n").startswith(shared)
        assert first.startswith("Sentence ")
        assert 100 <= len(shared) <= 200


def test_no_overlap_crosses_a_heading() -> None:
    text = "# A\n\n" + LOREM.format(n=1) * 3 + "\n\n# B\n\nshort\n"
    assert chunk("a.md", text)[-1] == "B\n\nshort"


def test_a_sentence_longer_than_a_chunk_is_split_between_words() -> None:
    text = " ".join(f"word{n}" for n in range(500))
    chunks = chunk("a.txt", text)
    assert words(text) == words(" ".join(chunks))
    assert all(count_words(c) <= 64 for c in chunks)


def test_a_word_longer_than_a_chunk_is_cut_and_its_parts_give_it_back() -> None:
    word = "".join(f"{n:x}." for n in range(3000))
    assert "".join(chunk("a.txt", word)) == word


def test_one_huge_piece_does_not_make_a_huge_chunk() -> None:
    chunks = chunk("a.md", "x" * 300_000)
    assert "".join(chunks) == "x" * 300_000
    assert max(map(len, chunks)) <= 10_000


def test_a_long_heading_path_is_shortened_and_the_heading_itself_kept() -> None:
    titles = [f"{word} " * 6 for word in ("alpha", "beta", "gamma", "delta")]
    text = "\n".join(f"{'#' * (n + 1)} {t}" for n, t in enumerate(titles)) + "\nbody\n"
    chunks = chunk("a.md", text, max_pieces=64)
    assert chunks[-1] == f"{titles[0].strip()} > … > {titles[3].strip()}\n\nbody"
    assert words(text) <= words(" ".join(chunks))


def test_a_heading_too_long_for_its_share_stays_complete_in_the_text() -> None:
    title = " ".join(f"h{n}" for n in range(30))
    chunks = chunk("a.md", f"# {title}\nbody\n", max_pieces=64)
    assert chunks == [f"{chunks[0].splitlines()[0]}\n\n{title}\n\nbody"]
    assert chunks[0].splitlines()[0].endswith("…")


NOTE = """---
title: Tides
aliases: [Ebb and flow]
tags:
  - sea
  - "#moon"
date: 2026-03-02
author: Ann
---
"""


@pytest.mark.parametrize(
    "top",
    [
        NOTE,
        NOTE.replace("aliases: [Ebb and flow]", "Aliases: Ebb and flow"),
        '+++\ntitle = "Tides"\naliases = ["Ebb and flow"]\ntags = ["sea", "moon"]\n'
        'date = 2026-03-02\nauthor = "Ann"\n+++\n',
    ],
)
def test_front_matter_is_context_and_metadata_and_no_passage_of_its_own(top: str) -> None:
    chunks = chunk_file("n/x.md", top + "# Neap\nHalf moon.\n", count_pieces=count_words)
    assert [c.text for c in chunks] == [
        "Tides (Ebb and flow) > Neap\nTags: sea, moon · 2026-03-02\n\nHalf moon."
    ]
    fields = {name.lower(): value for name, value in chunks[0].metadata.items()}
    assert fields == {
        "title": "Tides",
        "aliases": ["Ebb and flow"],
        "tags": ["sea", "moon"],
        "date": "2026-03-02",
        "author": "Ann",
    }


def test_a_title_that_the_first_heading_repeats_stands_once() -> None:
    text = "---\ntitle: Tides\n---\n# Tides\nx\n## Neap\ny\n"
    assert chunk("a.md", text) == ["Tides\n\nx", "Tides > Neap\n\ny"]


def test_a_note_of_front_matter_alone_is_found_by_its_title_or_its_name() -> None:
    assert chunk("a.md", NOTE, max_pieces=256) == [
        "Tides (Ebb and flow)\nTags: sea, moon · 2026-03-02"
    ]
    assert chunk("n/Spring tide.md", "---\ntags: sea\n---\n") == ["Spring tide\nTags: sea"]


def test_front_matter_that_is_no_yaml_is_read_by_the_line() -> None:
    text = "---\ntitle: Tides: part 2\ntags:\n- sea\nloop: [*x]\n---\nbody"
    [only] = chunk_file("a.md", text, count_pieces=count_words)
    assert only.text == "Tides: part 2\nTags: sea\n\nbody"
    assert only.metadata == {"title": "Tides: part 2", "tags": ["sea"], "loop": "[*x]"}


def test_tags_too_many_for_every_passage_stand_in_the_first() -> None:
    tags = ", ".join(f"tag{n}" for n in range(20))
    first, second = chunk("a.md", f"---\ntitle: T\ntags: [{tags}]\n---\n# A\nx\n# B\ny\n")
    assert first == f"T > A\n\nTags: {tags}\n\nx"
    assert second == "T > B\n\ny"


_FIELD_LINE = st.builds(
    str.__add__,
    st.sampled_from(
        ["title: ", "tags:", "- ", "date=", "a: &x ", "b: *x", "  k: [", "c = 1e999", ""]
    ),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20),
)


@given(fence=st.sampled_from(["---", "+++"]), lines=st.lists(_FIELD_LINE, max_size=8))
@settings(max_examples=150, deadline=None)
def test_whatever_front_matter_holds_it_is_json_and_the_text_is_kept(
    fence: str, lines: list[str]
) -> None:
    top = "\n".join([fence, "title: x", *lines, fence])
    chunks = chunk_file("a.md", f"{top}\n\nlast words\n", count_pieces=count_words, max_pieces=64)
    assert "last words" in chunks[-1].text
    assert all(count_words(c.text) <= 64 for c in chunks)
    json.dumps(chunks[-1].metadata, allow_nan=False).encode()


def test_a_rule_at_the_top_or_an_enormous_block_is_no_front_matter() -> None:
    assert chunk("a.md", "---\n\nwords\n\n---\nmore") == ["words\n\nmore"]
    long = "---\n" + "".join(f"field{n}: {n}\n" for n in range(2000)) + "---\nbody\n"
    assert {"field1999", "body"} <= words("\n".join(chunk("a.md", long)))


def test_wiki_links_read_as_their_words_except_in_code() -> None:
    text = "# On [[Tides]]\nSee [[Moon#Phases|its phases]], ![[Sea#North]], [[1]](u), `[[ -f x ]]`."
    fence = "```sh\n[[ok]]\n```"
    row = "| a |\n|---|\n| [[Sea\\|the sea]] |"
    assert chunk("a.md", f"{text}\n\n{fence}\n\n{row}\n") == [
        "On Tides\n\nSee its phases, Sea North, [[1]](u), `[[ -f x ]]`."
        f"\n\n{fence}\n\n| a |\n|---|\n| the sea |"
    ]


def test_tables_lists_and_link_definitions_stay_under_their_heading() -> None:
    body = '| a | b |\n|---|---|\n| 1 | 2 |\n\n1. one\n2. two\n\n[ref]: https://x.example "T"'
    assert chunk("a.md", f"# H\n\n{body}\n", max_pieces=128) == [f"H\n\n{body}"]


def test_windows_line_ends_and_final_newlines_change_nothing() -> None:
    text = "# H\n\npara one\nline two\n\n- a\n- b\n"
    assert chunk("a.md", text.replace("\n", "\r\n")) == chunk("a.md", text.rstrip("\n"))


def test_restructured_text_levels_follow_first_appearance() -> None:
    text = "=====\nTitle\n=====\n\nIntro.\n\n"
    text += "Part\n~~~~\na\n\nDeep\n====\nb\n\n----\n\nPart 2\n~~~~~~\nc\n"
    assert chunk("a.rst", text) == [
        "Title\n\nIntro.",
        "Title > Part\n\na",
        "Title > Part > Deep\n\nb",
        "Title > Part 2\n\nc",
    ]


def test_restructured_text_literal_blocks_hold_no_titles_and_stay_together() -> None:
    text = (
        "Top\n===\n\nExample::\n\n    Not a title\n    -----------\n\n    # nor this\n\n"
        ".. code-block:: sh\n   :caption: x\n\n   ls\n\nAfter.\n"
    )
    assert chunk("a.rst", text) == ["Top\n\n" + text.split("===\n\n")[1].strip()]


def test_restructured_text_underline_too_short_is_no_title() -> None:
    assert chunk("a.rst", "A long line\n--\nrest\n") == ["A long line\n--\nrest"]
    assert chunk("a.rst", "FAQ\n---\nrest\n") == ["FAQ\n\nrest"]


def test_an_empty_file_has_no_chunks() -> None:
    assert chunk("a.md", " \n\n\t\n") == []
    assert chunk("a.rst", "") == []


def test_a_run_of_white_space_makes_no_chunk() -> None:
    assert [c.strip() for c in chunk("a.md", " " * 30_000 + "x")] == ["x"]


def test_a_limit_too_small_for_a_heading_and_a_word_is_refused() -> None:
    with pytest.raises(ValueError, match=str(MIN_MAX_PIECES)):
        chunk("a.md", "x", max_pieces=MIN_MAX_PIECES - 1)


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("a.md", "# H\n\nSome words here. And more of them.\n\n- a\n\n"),
        ("a.md", "word " * 50),
        ("a.md", "x."),
        ("a.md", "\n.\n"),
        ("a.rst", "Title\n=====\n\nSome words here.\n\n"),
        ("a.txt", "one line\n"),
    ],
)
def test_counting_is_linear_in_the_text(path: str, unit: str) -> None:
    def counted_chars(n_chars: int) -> int:
        total = 0

        def counting(text: str) -> int:
            nonlocal total
            total += len(text)
            return count_words(text)

        text = unit * (n_chars // len(unit))
        chunk_file(path, text, count_pieces=counting, max_pieces=64)
        return total

    assert counted_chars(80_000) < 5 * counted_chars(20_000)


def test_with_the_real_tokenizer_no_chunk_is_cut_off_by_the_model() -> None:
    count_pieces = Tokeniser(default_model_dir(os.environ, Path.home())).count_pieces
    text = (
        "# Überschrift 漢字 café\n\n"
        + "Naïve façades: $x_{1}^2$ – см. https://example.org/a/b?c=d&e=%20f (π≈3.14159)! " * 60
        + "\n\n```js\n"
        + "const getUserName=(a,b)=>{return `${a}_${b}`};" * 60
        + "\n```\n\n"
        + "這是一個很長的句子。我們看看會發生什麼事。" * 60
        + "\n\n"
        + "a1b2c3d4" * 500
    )
    chunks = [c.text for c in chunk_file("a.md", text, count_pieces=count_pieces)]
    assert max(map(count_pieces, chunks)) <= MAX_PIECES
    assert words(text) - words(" ".join(chunks)) <= {"a1b2c3d4" * 500}
