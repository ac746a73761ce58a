"""Text files and documents, cut into passages as `/index/build` cuts them."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.cli.readers.inputs import InputFile
from scripts.cli.readers.records import Memory, Options, Record, Unreadable, content_key

if TYPE_CHECKING:
    from engine.records import Chunk

MAX_FILE_BYTES = 20 * 1024 * 1024
_MAX_PIECES = 256
_CHARS_PER_PIECE = 3


def read_text(file: InputFile, options: Options) -> Iterator[Record]:
    """The passages of a text file; the source is `<file>:chunk_<n>`, the key that of their owner.

    So reading the file again puts passages in the place of the old ones.
    """
    with file.opened() as stream:
        content = stream.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        reason = f"larger than {MAX_FILE_BYTES // 2**20} MB"
        yield Unreadable(origin=file.name, reason=reason)
        return
    try:
        text = _text_of(content, file.suffix)
    except ValueError as exc:
        yield Unreadable(origin=file.name, reason=str(exc))
        return
    if options.secrets is not None:  # whole: a passage may end within a private key
        text = options.secrets.without(text)
    # What is piped in is no file that a later one could take the place of.
    owner = content_key("stdin", text) if file.is_stdin else file.owner(options.source)
    for passage in _passages(file.source(options.source), text):
        line: dict[str, Any] = {"text": passage.text, "source": passage.source, "key": owner}
        line |= {"metadata": passage.metadata} if passage.metadata else {}
        line["deduplicate"] = False
        yield Memory(line=line, origin=f"{file.name} ({passage.source.rpartition(':')[2]})")


def missing_for(suffix: str) -> str | None:
    """What is to be done before documents of a kind are read; None when nothing is."""
    from engine.workspace.documents import missing_for

    return missing_for(suffix)


def _text_of(content: bytes, suffix: str) -> str:
    """What a file says. Raises `ValueError` with the reason when it cannot be read."""
    from engine.workspace.documents import DOCUMENT_SUFFIXES, Documents, UnreadableDocumentError

    try:
        if suffix in DOCUMENT_SUFFIXES:
            with Documents() as documents:
                text = documents.text(content, suffix)
        else:
            text = content.decode("utf-8-sig")
    except UnreadableDocumentError as exc:
        raise ValueError(str(exc)) from exc
    except UnicodeDecodeError as exc:
        raise ValueError("not UTF-8 text") from exc
    if "\0" in text:
        raise ValueError("holds NUL characters, so it is no text")
    return text


def _passages(name: str, text: str) -> list[Chunk]:
    from engine.workspace.chunking import chunk_file

    return chunk_file(name, text, count_pieces=_counter(), max_pieces=_MAX_PIECES)


@functools.cache
def _counter() -> Callable[[str], int]:
    """Counts what the model sees; without the model's files, an estimate on the safe side."""
    from engine.errors import ModelNotFoundError
    from engine.model.files import default_model_dir
    from engine.model.tokeniser import Tokeniser

    try:
        return Tokeniser(default_model_dir(os.environ, Path.home())).count_pieces
    except ModelNotFoundError:
        return lambda text: 2 + -(-len(text) // _CHARS_PER_PIECE)
