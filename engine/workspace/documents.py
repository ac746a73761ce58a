"""Documents that are no text files: HTML, PDF, Word, notebooks. What they say becomes Markdown.

Foreign parsers read foreign files: they do it in a process of their own, which may take so much
time and memory and no more, and whose death is that file's alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Final

_NEEDS: Final[dict[str, tuple[str, ...]]] = {
    ".html": ("markdownify",),
    ".htm": ("markdownify",),
    ".xhtml": ("markdownify",),
    ".pdf": ("pypdf",),
    ".docx": ("mammoth", "markdownify"),
    ".ipynb": (),
}
"""The packages that read them."""

DOCUMENT_SUFFIXES = frozenset(_NEEDS)
_HOW_TO_ADD = "pip install 'faiss-memory[documents]'"

_LONGEST_S = 300
_READER = "from engine.workspace.document_reader import main; main()"


class UnreadableDocumentError(Exception):
    """Why a document is not read."""


def missing_for(suffix: str) -> str | None:
    """What is to be done before documents of a kind can be read; None when nothing is."""
    is_there = all(find_spec(package) is not None for package in _NEEDS[suffix])
    return None if is_there else f"{suffix} is read after {_HOW_TO_ADD}"


def document_text(content: bytes, suffix: str) -> str:
    """What a document says, as Markdown: its text alone, headings as headings; may be empty.

    Raises:
        UnreadableDocumentError: it is broken, encrypted or takes too much, or the packages that
            read it are not installed.
    """
    if (missing := missing_for(suffix)) is not None:
        raise UnreadableDocumentError(missing)
    return _notebook(content) if suffix == ".ipynb" else _read_apart(content, suffix)


def _read_apart(content: bytes, suffix: str) -> str:
    # Nothing of the directory it starts in, or of the environment, is imported or read there.
    paths = os.pathsep.join(path for path in sys.path if path)
    try:
        done = subprocess.run(
            [sys.executable, "-c", _READER, suffix],
            input=content,
            capture_output=True,
            timeout=_LONGEST_S,
            env={"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1"},
            cwd="/",
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UnreadableDocumentError("it takes too long to read") from None
    if done.returncode < 0:
        raise UnreadableDocumentError("it takes too much time or memory to read")
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise UnreadableDocumentError(lines[-1][:200] if lines else "it cannot be read")
    return done.stdout.decode("utf-8", "replace")


def _notebook(content: bytes) -> str:
    """The cells of a Jupyter notebook without their outputs (https://nbformat.readthedocs.io)."""
    try:
        notebook = json.loads(content.decode("utf-8-sig"))
        cells = notebook["cells"] if "cells" in notebook else notebook["worksheets"][0]["cells"]
        language = (notebook.get("metadata") or {}).get("language_info", {}).get("name", "")
        return "\n\n".join(filter(None, (_cell(cell, str(language)) for cell in cells)))
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        raise UnreadableDocumentError("it is no notebook") from None


def _cell(cell: dict[str, Any], language: str) -> str:
    said: str | Sequence[str] = cell.get("source", cell.get("input", ""))
    text = (said if isinstance(said, str) else "".join(said)).strip("\n")
    if not text.strip():
        return ""
    if cell["cell_type"] == "heading":  # until nbformat 3
        return f"{'#' * cell['level']} {text}"
    if cell["cell_type"] != "code":
        return text
    fence = "`" * max(3, 1 + max(map(len, text.split("\n")), default=0) if "```" in text else 3)
    return f"{fence}{language}\n{text}\n{fence}"
