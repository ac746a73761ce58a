"""Load passages from a JSON Lines file into a running service, with a progress bar.

python -m scripts.load_corpus corpus.jsonl.gz [--source NAME] [--batch 200] [--limit N] ...
"""

from __future__ import annotations

import gzip
import io
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TimeRemainingColumn,
)
from rich.text import Text

MAX_BATCH = 500
_MAX_ATTEMPTS = 8
_MAX_WAIT_S = 30.0
_TIMEOUT_S = 300.0
_TRY_AGAIN = frozenset({429, 503})
_OWN_KEYS = frozenset({"_id", "text", "source", "metadata"})

Memory = dict[str, Any]


class LoadError(Exception):
    """Why the loading stopped, for people."""


def read_passages(path: Path, *, name: str, with_title: bool) -> Iterator[tuple[int, Memory]]:
    """Line number and memory of each passage that has text.

    A line is `{"text", ...}` or BEIR's `{"_id", "title", "text", "metadata"}`. Its other keys go
    into the metadata. The source is its own, or `<name>/<_id or line number>`.

    Raises:
        LoadError: a line that is no passage; names it.
    """
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            metadata = {key: value for key, value in row.items() if key not in _OWN_KEYS}
            metadata |= row.get("metadata") or {}
            source = row.get("source") or f"{name}/{row.get('_id', number)}"
            text = row["text"].strip()
            title = (row.get("title") or "").strip() if with_title else ""
        except (ValueError, TypeError, KeyError, AttributeError) as exc:
            raise LoadError(f"{path}, line {number}: no JSON object with a 'text'") from exc
        text = ": ".join(part for part in (title, text) if part)
        if text:
            yield number, {"text": text, "source": source, "metadata": metadata}


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open("rb") as file:
            packed = path.suffix == ".gz"
            content = gzip.GzipFile(fileobj=file) if packed else file
            yield from io.TextIOWrapper(content, encoding="utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as exc:
        raise LoadError(f"{path} cannot be read: {exc}") from exc


class Loader:
    """Sends batches to the service, several at a time, and counts what became of them."""

    def __init__(
        self,
        client: httpx.Client,
        *,
        deduplicate: bool,
        concurrency: int,
        on_sent: Callable[[int], None] = lambda n: None,
    ) -> None:
        self._client = client
        self._deduplicate = deduplicate
        self._concurrency = concurrency
        self._on_sent = on_sent
        self.n_added = 0
        self.n_duplicates = 0

    def load(self, passages: Iterator[tuple[int, Memory]], *, batch_size: int) -> None:
        """Send every passage; stop at the first batch that is refused.

        Raises:
            LoadError: what was refused; the batches under way are finished and counted.
        """
        under_way: set[Future[tuple[int, int]]] = set()
        with ThreadPoolExecutor(self._concurrency) as pool:
            try:
                while batch := list(islice(passages, batch_size)):
                    under_way.add(pool.submit(self._send, batch))
                    if len(under_way) > self._concurrency:
                        done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                        self._count(done)
            finally:
                self._count(under_way)

    def _count(self, sendings: set[Future[tuple[int, int]]]) -> None:
        failures = [error for sending in sendings if (error := sending.exception())]
        for sending in sendings:
            if sending.exception() is None:
                n_sent, n_added = sending.result()
                self.n_added += n_added
                self.n_duplicates += n_sent - n_added
                self._on_sent(n_sent)
        if failures:
            raise failures[0]

    def _send(self, batch: list[tuple[int, Memory]]) -> tuple[int, int]:
        """Add a batch, trying again while the service is busy; returns sent and added."""
        body = {"memories": [memory for _, memory in batch], "deduplicate": self._deduplicate}
        # One key for all attempts: a batch whose answer was lost is not added twice.
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        where = f"lines {batch[0][0]} to {batch[-1][0]}"
        for attempt in range(1, _MAX_ATTEMPTS + 1):
            problem, wait_s = "no answer", min(2.0**attempt / 4, _MAX_WAIT_S)
            try:
                answer = self._client.post("/memory/add-batch", json=body, headers=headers)
            except httpx.TransportError as exc:
                problem = str(exc) or type(exc).__name__
            else:
                if answer.is_success:
                    return len(batch), _n_added(answer)
                problem = f"HTTP {answer.status_code}: {answer.text[:300]}"
                if answer.status_code not in _TRY_AGAIN:
                    raise LoadError(f"{where} were refused: {problem}")
                wait_s = _retry_after_s(answer, default=wait_s)
            if attempt < _MAX_ATTEMPTS:
                time.sleep(wait_s)
        raise LoadError(f"{where} could not be sent in {_MAX_ATTEMPTS} attempts: {problem}")


def _require_service(client: httpx.Client) -> None:
    # Tried once: a wrong address is told at once and not after a minute of attempts.
    try:
        client.get("/health")
    except (httpx.TransportError, httpx.InvalidURL) as exc:
        problem = f"no service answers at {client.base_url} ({exc}); is `make serve` running?"
        raise LoadError(problem) from exc


def _n_added(answer: httpx.Response) -> int:
    try:
        return int(answer.json()["count"])
    except (ValueError, TypeError, KeyError) as exc:
        raise LoadError(f"{answer.url} is no FAISS Memory service: {answer.text[:100]}") from exc


def _retry_after_s(answer: httpx.Response, *, default: float) -> float:
    try:
        return min(max(float(answer.headers["Retry-After"]), 0.0), _MAX_WAIT_S)
    except (KeyError, ValueError):  # absent, or a date
        return default


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.finished_speed or task.speed or 0:,.0f}/s")


def main(
    file: Annotated[Path, typer.Argument(help="JSON Lines, .gz or plain.", dir_okay=False)],
    url: Annotated[str, typer.Option(envvar="FAISS_URL")] = "http://localhost:8900",
    name: Annotated[
        str, typer.Option("--source", help="Sources are NAME/ID. Default: the file's directory.")
    ] = "",
    batch: Annotated[int, typer.Option(min=1, max=MAX_BATCH)] = 200,
    limit: Annotated[int | None, typer.Option(min=1, help="Load only so many.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=64)] = 2,
    deduplicate: Annotated[bool, typer.Option(help="Skip what is stored already.")] = False,
    title: Annotated[bool, typer.Option(help="Put 'title: ' before the text.")] = True,
) -> None:
    """Add the passages of FILE to a running service; FAISS_API_KEY is its key, if it has one."""
    console = Console(stderr=True)
    name = name or file.resolve().parent.name
    started = time.monotonic()

    def passages() -> Iterator[tuple[int, Memory]]:
        return islice(read_passages(file, name=name, with_title=title), limit)

    columns = (BarColumn(), MofNCompleteColumn(), _RateColumn(), TimeRemainingColumn())
    with (
        httpx.Client(
            base_url=url.rstrip("/"),
            headers={"X-API-Key": os.environ.get("FAISS_API_KEY", "")},
            timeout=_TIMEOUT_S,
            trust_env=False,
        ) as client,
        Progress(*columns, console=console) as progress,
    ):
        task = progress.add_task("passages", total=None)
        loader = Loader(
            client,
            deduplicate=deduplicate,
            concurrency=concurrency,
            on_sent=lambda n: progress.advance(task, n),
        )
        problem = ""
        try:
            # Read once to count, and so that a broken file is refused before anything is added.
            progress.update(task, total=sum(1 for _ in passages()))
            _require_service(client)
            loader.load(passages(), batch_size=batch)
        except LoadError as exc:
            problem = str(exc)
    skipped = f", {loader.n_duplicates} duplicates skipped" if loader.n_duplicates else ""
    seconds = time.monotonic() - started
    console.print(f"{loader.n_added} memories added{skipped} in {seconds:.1f} s", highlight=False)
    if problem:
        console.print(f"Stopped: {problem}", style="red", markup=False, highlight=False)
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
