"""Exports that are one JSON document; they are read whole."""

from __future__ import annotations

import json
from typing import IO, Any

from scripts.cli.errors import CliError
from scripts.cli.readers.inputs import InputFile


def load_document(stream: IO[bytes], file: InputFile) -> Any:  # noqa: ANN401 (JSON)
    """The document of a stream.

    Raises:
        CliError: it is no JSON.
    """
    try:
        return json.loads(stream.read().decode("utf-8-sig"))
    except RecursionError:
        raise CliError(f"{file.name} is nested too deeply") from None
    except ValueError as exc:
        raise CliError(f"{file.name} is no JSON document: {exc}") from None


_LISTS = ("memories", "results", "data", "items", "documents", "records", "conversations")


def rows_of(document: object) -> list[Any] | None:
    """The list of things that a document is, or that it holds under a usual name."""
    if isinstance(document, dict):
        document = next((document[name] for name in _LISTS if name in document), None)
    return document if isinstance(document, list) else None
