"""Which files an import reads."""

from __future__ import annotations

from scripts.cli.errors import CliError, NothingFoundError, UsageError
from scripts.cli.importing.reading import Reading
from scripts.cli.readers import (
    KNOWN_NAMES,
    NOT_READ,
    SUFFIXES,
    TEXT_SUFFIXES,
    Format,
    kind_of,
    why_not_read,
)
from scripts.cli.readers.inputs import InputFile, find_inputs
from scripts.cli.terminal import note, print_json

_CALLED_BY_PATH = TEXT_SUFFIXES | SUFFIXES[Format.CSV] | {".json", ".sqlite3"}
"""Files whose memories may be told by the file's name alone."""


def chosen_files(paths: list[str], format: Format, *, as_json: bool) -> list[InputFile]:
    """The files to read; those that are skipped are told."""
    files, skipped = _chosen(paths, format)
    for why in skipped:
        _tell_skipped(why, as_json=as_json)
    if not files:
        raise NothingFoundError(f"No {_named(format)} files there.")
    return files


def _chosen(paths: list[str], format: Format) -> tuple[list[InputFile], list[tuple[str, str]]]:
    """The files to read, and the names of the others that might be meant, with the reason."""
    if format is not Format.AUTO:
        return find_inputs(paths, SUFFIXES[format]), []
    found = find_inputs(paths, SUFFIXES[format] | NOT_READ.keys())
    why = {file.name: why_not_read(file) or _unknown(file) for file in found}
    files = [file for file in found if why[file.name] is None]
    return files, [(name, reason) for name, reason in why.items() if reason is not None]


def _unknown(file: InputFile) -> str | None:
    """Why a file is not what its name alone says; None for any other."""
    if file.relative.rpartition("/")[2] not in KNOWN_NAMES:
        return None
    try:
        kind_of(file, Format.AUTO)
    except CliError as exc:
        return str(exc)
    return None


def _tell_skipped(skipped: tuple[str, str], *, as_json: bool) -> None:
    name, reason = skipped
    if as_json:
        print_json({"type": "skipped", "origin": name, "reason": reason})
    else:
        note(f"Skipped {name}: {reason}.")


def refuse_files_of_one_name(reading: Reading) -> None:
    """Raise `UsageError` when one file of a run would take the place of another."""
    first: dict[str, InputFile] = {}
    for file in reading.files:
        is_told_by_name = reading.format not in (Format.TEXT, Format.CSV, Format.CHROMA)
        if is_told_by_name and file.suffix not in _CALLED_BY_PATH:
            continue
        other = first.setdefault(file.source(reading.options.source), file)
        if other is not file:
            raise UsageError(
                f"{other.name} and {file.name} would both be "
                f"{file.source(reading.options.source)}, and one would replace the other. "
                "Import them one by one with a --source each, or leave --source out."
            )


def _named(format: Format) -> str:
    return "text" if format is Format.AUTO else format.value
