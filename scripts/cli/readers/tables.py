"""CSV and TSV with a heading line: a memory per row."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

from scripts.cli.errors import UsageError
from scripts.cli.readers.inputs import InputFile
from scripts.cli.readers.records import Memory, Options, Record, Unreadable

_TEXT_NAMES = ("text", "content", "memory", "note", "body", "document")
_MAX_CELL_CHARS = 1_000_000


def read_table(file: InputFile, options: Options) -> Iterator[Record]:
    """A memory per row. Columns without a part of their own become metadata, empty ones do not.

    The text is in `--text-column`, or in the first of `text`, `content`, … that there is; the
    source in `--source-column` or `source`, else it is `<file>:<line>`.

    Raises:
        UsageError: the columns named are not there.
    """
    csv.field_size_limit(_MAX_CELL_CHARS)
    with file.opened() as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
        try:
            delimiter = "\t" if file.suffix == ".tsv" else ","
            rows = csv.reader(text, delimiter=delimiter)
            columns = next(_readable(rows, file), None)
            if not isinstance(columns, list):
                return
            names = [name.strip() for name in columns]
            text_name = _column(file, names, options.text_column, _TEXT_NAMES)
            if text_name is None:
                raise UsageError(
                    f"{file.name} has no column named {', '.join(_TEXT_NAMES)}; "
                    f"say which one is the text with --text-column: {', '.join(names)}"
                )
            source_name = _column(file, names, options.source_column, ("source",))
            key_name = _column(file, names, options.key_column, ("key",))
            for cells in _readable(rows, file):
                if isinstance(cells, Unreadable):
                    yield cells
                elif any(cell.strip() for cell in cells):
                    origin = f"{file.name}, line {rows.line_num}"
                    if len(cells) > len(names):
                        reason = f"{len(cells)} cells for {len(names)} columns; quote the commas"
                        yield Unreadable(origin=origin, reason=reason)
                        continue
                    row = {n: c for n, c in zip(names, cells, strict=False) if n and c.strip()}
                    try:
                        "".join(row.values()).encode()
                        words, source = row.pop(text_name), row.pop(source_name or "", "")
                    except UnicodeEncodeError:
                        yield Unreadable(origin=origin, reason="the row is not UTF-8")
                        continue
                    except KeyError:
                        reason = f"nothing in column {text_name!r}"
                        yield Unreadable(origin=origin, reason=reason)
                        continue
                    key = row.pop(key_name or "", None)
                    if source:
                        source = f"{options.source or ''}{source}"
                    elif key is not None:
                        source = file.source(options.source)
                    else:
                        source = f"{file.source(options.source)}:{rows.line_num}"
                    line: dict[str, object] = {"text": words, "source": source}
                    line |= {"key": key} if key is not None else {}
                    line |= {"metadata": row} if row else {}
                    yield Memory(line=line, origin=origin)
        finally:
            text.detach()


def _readable(rows: Iterator[list[str]], file: InputFile) -> Iterator[list[str] | Unreadable]:
    while True:
        try:
            yield next(rows)
        except StopIteration:
            return
        except csv.Error as exc:
            yield Unreadable(origin=file.name, reason=str(exc))


def _column(
    file: InputFile, names: Sequence[str], asked: str | None, usual: Sequence[str]
) -> str | None:
    if asked is not None:
        if asked not in names:
            raise UsageError(f"{file.name} has no column {asked!r}; it has {', '.join(names)}")
        return asked
    by_small = {name.lower(): name for name in reversed(names)}
    return next((by_small[name] for name in usual if name in by_small), None)
