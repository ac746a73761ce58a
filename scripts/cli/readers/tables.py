"""CSV and TSV with a heading line: a memory per row."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from scripts.cli.errors import UsageError
from scripts.cli.readers.inputs import InputFile
from scripts.cli.readers.records import TEXT_NAMES, Memory, Options, Record, Unreadable, times

_MAX_CELL_CHARS = 1_000_000


def read_table(file: InputFile, options: Options) -> Iterator[Record]:
    """A memory per row. Columns without a part of their own become metadata, empty ones do not.

    The text is in `--text-column`, or in the first of `text`, `content`, … that there is; the
    source in `--source-column` or `source`, else it is `<file>:<line>`; the times in `timestamp`
    or `created_at`, and `updated_at`.

    Raises:
        UsageError: the columns named are not there.
    """
    csv.field_size_limit(_MAX_CELL_CHARS)
    with file.opened() as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
        try:
            rows = _Rows(text, delimiter="\t" if file.suffix == ".tsv" else ",")
            columns = next(iter(rows), [])
            if isinstance(columns, str):
                yield Unreadable(origin=f"{file.name}, line 1", reason=columns)
            if isinstance(columns, str) or not columns:
                return
            table = _Table.of(file, [name.strip() for name in columns], options)
            for cells in rows:
                origin = f"{file.name}, line {rows.line_number}"
                if isinstance(cells, str):
                    yield Unreadable(origin=f"{file.name}, line {rows.first_line}", reason=cells)
                elif any(cell.strip() for cell in cells):
                    try:
                        yield Memory(line=table.line(cells, rows.line_number), origin=origin)
                    except ValueError as exc:
                        yield Unreadable(origin=origin, reason=str(exc))
        finally:
            text.detach()


class _Rows:
    """The rows of a table, or why there is none; knows which lines the current one takes."""

    def __init__(self, text: io.TextIOWrapper, *, delimiter: str) -> None:
        self._reader = csv.reader(itertools.chain(text, self._end()), delimiter=delimiter)
        self._is_read = False
        self.first_line = 1

    @property
    def line_number(self) -> int:
        """Of the row's last line."""
        return self._reader.line_num

    def __iter__(self) -> Iterator[list[str] | str]:
        while True:
            self.first_line = self._reader.line_num + 1
            try:
                row = next(self._reader)
            except StopIteration:
                return
            except csv.Error as exc:
                yield str(exc)
                continue
            # Only within a quote is another line asked for before the row is there.
            yield "a quote opens here and is never closed" if self._is_read else row

    def _end(self) -> Iterator[str]:
        self._is_read = True
        yield from ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """What the columns of a table are."""

    file: InputFile
    prefix: str | None
    names: list[str]
    text: str
    source: str | None
    key: str | None

    @classmethod
    def of(cls, file: InputFile, names: list[str], options: Options) -> _Table:
        """Raises `UsageError`: the columns named are not there."""
        text = _column(file, names, options.text_column, TEXT_NAMES)
        if text is None:
            raise UsageError(
                f"{file.name} has no column named {', '.join(TEXT_NAMES)}; "
                f"say which one is the text with --text-column: {', '.join(names)}"
            )
        return cls(
            file=file,
            prefix=options.source,
            names=names,
            text=text,
            source=_column(file, names, options.source_column, ("source",)),
            key=_column(file, names, options.key_column, ("key",)),
        )

    def line(self, cells: Sequence[str], line_number: int) -> dict[str, object]:
        """The line to import of a row. Raises `ValueError`: it holds none; says why."""
        if len(cells) > len(self.names):
            raise ValueError(f"{len(cells)} cells for {len(self.names)} columns; quote the commas")
        row = {n: c for n, c in zip(self.names, cells, strict=False) if n and c.strip()}
        try:
            "".join(row.values()).encode()
        except UnicodeEncodeError:
            raise ValueError("the row is not UTF-8") from None
        if (words := row.pop(self.text, None)) is None:
            raise ValueError(f"nothing in column {self.text!r}")
        source, key = row.pop(self.source or "", None), row.pop(self.key or "", None)
        if source is not None:
            source = f"{self.prefix or ''}{source}"
        else:
            at = f":{line_number}" if key is None else ""
            source = f"{self.file.source(self.prefix)}{at}"
        line: dict[str, object] = {"text": words, "source": source}
        line |= {"key": key} if key is not None else {}
        line |= (dates := times(row))
        made = ("timestamp", "created_at") if "timestamp" in dates else ()
        for name in (*made, *dates):
            row.pop(name, None)
        return line | ({"metadata": row} if row else {})


def _column(
    file: InputFile, names: Sequence[str], asked: str | None, usual: Sequence[str]
) -> str | None:
    if asked is not None:
        if asked not in names:
            raise UsageError(f"{file.name} has no column {asked!r}; it has {', '.join(names)}")
        return asked
    by_small = {name.lower(): name for name in reversed(names)}
    return next((by_small[name] for name in usual if name in by_small), None)
