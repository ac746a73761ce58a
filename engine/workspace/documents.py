"""Documents that are no text files: HTML, PDF, Word, notebooks. What they say becomes Markdown.

Foreign parsers read foreign files: they do it in a process of their own, which may take so much
time and memory for each and no more, and whose death is that file's alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
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
_MAX_REASON_CHARS = 200
_READER = "from engine.workspace.document_reader import main; main()"


class UnreadableDocumentError(Exception):
    """Why a document is not read."""


def missing_for(suffix: str) -> str | None:
    """What is to be done before documents of a kind can be read; None when nothing is."""
    is_there = all(find_spec(package) is not None for package in _NEEDS[suffix])
    return None if is_there else f"{suffix} is read after {_HOW_TO_ADD}"


class Documents:
    """Reads documents one after another, in a process that is started when one needs it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Documents:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def text(self, content: bytes, suffix: str) -> str:
        """What a document says, as Markdown: its text, headings as headings; may be empty.

        Raises:
            UnreadableDocumentError: it is broken, encrypted or takes too much, or the packages
                that read it are not installed.
        """
        if (missing := missing_for(suffix)) is not None:
            raise UnreadableDocumentError(missing)
        return _notebook(content) if suffix == ".ipynb" else self._read_apart(content, suffix)

    def _read_apart(self, content: bytes, suffix: str) -> str:
        if self._process is None:
            self._process = _started()
        process = self._process
        watch = threading.Timer(_LONGEST_S, process.kill)
        watch.start()
        try:
            is_read, said = _ask(process, content, suffix)
        except (OSError, ValueError):  # it died of its limits
            self.close()
            raise UnreadableDocumentError("it takes too much time or memory to read") from None
        finally:
            watch.cancel()
        if not is_read:
            self.close()  # whatever it left in memory
            raise UnreadableDocumentError(said[:_MAX_REASON_CHARS])
        return said


def _started() -> subprocess.Popen[bytes]:
    # Nothing of the directory it starts in, or of the environment, is imported or read there.
    paths = os.pathsep.join(path for path in sys.path if path)
    return subprocess.Popen(
        [sys.executable, "-c", _READER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1"},
        cwd="/",
    )


def _ask(process: subprocess.Popen[bytes], content: bytes, suffix: str) -> tuple[bool, str]:
    """Have a document read: whether that was possible, and what it says, or else why not."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{suffix} {len(content)}\n".encode() + content)
    process.stdin.flush()
    outcome, size = process.stdout.readline().split()
    said = process.stdout.read(int(size))
    if len(said) < int(size):
        raise ValueError("cut off")
    return outcome == b"read", said.decode("utf-8", "replace")


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
        return f"{'#' * max(1, min(cell['level'], 6))} {text}"
    if cell["cell_type"] != "code":
        return text
    fence = "`" * max(3, 1 + max(map(len, text.split("\n")), default=0) if "```" in text else 3)
    return f"{fence}{language}\n{text}\n{fence}"
