"""Which of the files that a command line names are read."""

from __future__ import annotations

from scripts.cli.errors import CliError, NothingFoundError
from scripts.cli.readers import KNOWN_NAMES, NOT_READ, SUFFIXES, Format, kind_of, why_not_read
from scripts.cli.readers.inputs import InputFile, find_inputs
from scripts.cli.terminal import note, print_json


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


def _named(format: Format) -> str:
    return "text" if format is Format.AUTO else format.value
