"""One memory or a page of them: status, add, search, list, delete."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from scripts.cli.errors import CliError, NothingFoundError, RefusedError, UsageError
from scripts.cli.explanations import looked_at, why
from scripts.cli.options import (
    DEFAULT_URL,
    AsJson,
    Order,
    Redact,
    Url,
    Yes,
    filtered,
    service_at,
)
from scripts.cli.service import Json, Service
from scripts.cli.terminal import (
    confirm,
    counted,
    day,
    heading,
    note,
    note_redacted,
    one_line,
    print_json,
    said_already,
    say,
)
from wire import limits


def status(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Show what the service holds and whether it is well."""
    service = service_at(url)
    stats = service.get("/stats")
    if as_json:
        print_json({"url": service.url, **stats})
        return
    heading(f"{service.url} answers, version {stats.get('version', '?')}")
    say(f"memories      {stats['total_memories']:,}")
    say(f"last change   {day(stats['last_updated']) if stats['last_updated'] else 'never'}")
    precision = f", {stats['precision']}" if "precision" in stats else ""
    say(f"model         {stats['model']}, {stats['dimension']} dimensions{precision}")
    say(f"on disk       {(stats.get('store_bytes') or stats['index_size_bytes']) / 1e6:,.1f} MB")
    say(f"backups       {stats['backup_count']}")


def add(
    texts: Annotated[list[str], typer.Argument(help="Texts; - reads one from stdin.")],
    source: Annotated[str, typer.Option("--source", "-s", help="Where it comes from.")] = "cli",
    metadata: Annotated[str | None, typer.Option("--metadata", "-m", help="A JSON object.")] = None,
    key: Annotated[
        str | None, typer.Option(help="Put it in the place of the one with this source and key.")
    ] = None,
    deduplicate: Annotated[bool, typer.Option(help="Skip what is stored already.")] = True,
    redact: Redact = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Store memories."""
    if key is not None and len(texts) > 1:
        raise UsageError("--key names one memory; give one text")
    service = service_at(url)
    given = json_object(metadata)
    for text in texts:
        memory = {
            "text": read_argument(text),
            "source": source,
            "metadata": given,
            "redact": redact,
        }
        if key is not None:
            answer = service.post("/memory/upsert", {**memory, "key": key})
        else:
            answer = service.post("/memory/add", {**memory, "deduplicate": deduplicate})
        if as_json:
            print_json(answer)
        elif answer["id"] is None:
            say(f"Skipped: {said_already(answer)}")
        else:
            say(f"{'Added' if answer.get('created', True) else 'Replaced'} memory {answer['id']}")
            for similar in answer.get("similar", []):
                how_much = f"{similar['similarity']:.0%}"
                note(f"Much like memory {similar['id']} ({how_much}): {one_line(similar['text'])}")
        if not as_json:
            note_redacted(answer.get("redacted"))


def read_argument(argument: str) -> str:
    """The argument, or what stdin says in its place."""
    if argument != "-":
        return argument
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as exc:
        raise UsageError(f"stdin is not UTF-8: {exc}") from exc


@filtered
def search(
    query: Annotated[str, typer.Argument(help="What to look for, in plain words; - is stdin.")],
    k: Annotated[
        int, typer.Option("-k", min=1, max=limits.MAX_HITS, help="How many at most.")
    ] = limits.HITS,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Least cosine similarity.")
    ] = None,
    hybrid: Annotated[bool, typer.Option(help="By meaning and words, or by meaning alone.")] = True,
    metadata: Annotated[
        str | None, typer.Option("--metadata", "-m", help="A JSON object of values that must be.")
    ] = None,
    order: Annotated[
        Order, typer.Option(help="The best ones: best first, or by time of creation.")
    ] = Order.BEST,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say why each came, and what was dropped.")
    ] = False,
    *,
    where: Json,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Find memories. Exits with 4 when there are none."""
    answer = service_at(url).post(
        "/search",
        {
            "query": read_argument(query),
            "k": k,
            "threshold": threshold,
            "hybrid": hybrid,
            "metadata": json_object(metadata),
            "order": order.value,
            "explain": explain,
            **where,
        },
    )
    if as_json:
        print_json(answer)
        raise typer.Exit(0 if answer["results"] else NothingFoundError.exit_code)
    for number, hit in enumerate(answer["results"], start=1):
        if number > 1:
            say()
        at = f"{hit['similarity']:.0%}  {day(hit['timestamp'])}"
        heading(f"{number}. {at}  {one_line(hit['source'])}  [{hit['id']}]")
        if "explain" in hit:
            say(why(hit["explain"]))
        say(hit["text"])
    if "explain" in answer:
        note(looked_at(answer["explain"]))
    if not answer["results"]:
        raise NothingFoundError("No memory matches.")


@filtered
def list_memories(
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, help="How many at most.")
    ] = limits.PAGE,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    newest: Annotated[bool, typer.Option(help="Newest first.")] = False,
    *,
    where: Json,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """List memories, oldest first. With --json one memory a line."""
    wanted = {**where, "order": "desc" if newest else "asc"}
    n_shown, page = 0, Json(total=0)
    for page in pages(service_at(url), limit=None if everything else limit, **wanted):
        n_shown += len(page["memories"])
        for memory in page["memories"]:
            if as_json:
                print_json(memory)
            else:
                at = f"[{memory['id']}] {day(memory['timestamp'])}  {one_line(memory['source'])}"
                say(f"{at} — {one_line(memory['text'])}")
    if not as_json:
        note(f"{n_shown:,} of {counted(page['total'], 'memory')}" if n_shown else "No memories.")


def pages(service: Service, *, limit: int | None = None, **where: object) -> Iterator[Json]:
    """Answers of `GET /memories`, one after another, until `limit` memories or all are there."""
    cursor, left = None, limit
    while left is None or left > 0:
        size = limits.MAX_PAGE if left is None else min(left, limits.MAX_PAGE)
        page = service.get("/memories", limit=size, cursor=cursor, **where)
        yield page
        cursor = page.get("next_cursor")
        left = None if left is None else left - len(page["memories"])
        if cursor is None:
            return


def delete(
    ids: Annotated[
        list[int] | None, typer.Argument(min=0, metavar="ID", help="Ids of memories.")
    ] = None,
    source: Annotated[
        str | None, typer.Option("--source", "-s", help="All whose source contains this.")
    ] = None,
    source_exact: Annotated[str | None, typer.Option(help="All of this very source.")] = None,
    yes: Yes = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Delete memories by id, or all of a source."""
    given = {"source": source, "source_exact": source_exact}
    where = {name: value for name, value in given.items() if value}
    if bool(ids) == bool(where):
        raise UsageError("give ids, or a source, and not both")
    service = service_at(url)
    if where:
        answer = _delete_sources(service, where, yes=yes)
    else:
        answer = _delete_ids(service, list(dict.fromkeys(ids or [])), yes=yes)
    if as_json:
        print_json(answer)
    else:
        say(f"Deleted {counted(answer['deleted_count'], 'memory')}")
    if missing := answer.get("missing"):
        listed = ", ".join(map(str, missing[:20])) + (" …" if len(missing) > 20 else "")
        raise CliError(f"{counted(len(missing), 'memory')} did not exist: {listed}")


def _delete_sources(service: Service, where: dict[str, str], *, yes: bool) -> Json:
    which = " and ".join(f"{_MEANT[name]} {value!r}" for name, value in where.items())
    total = service.get("/memories", **where, limit=1)["total"]
    if not total:
        raise NothingFoundError(f"No memory has a source that {which}.")
    confirm(f"Delete {counted(total, 'memory')} whose source {which}?", yes=yes)
    body = {_ASKED_AS.get(name, name): value for name, value in where.items()}
    return service.post("/memory/delete-by-source", body)


_MEANT = {"source": "contains", "source_exact": "is"}
_ASKED_AS = {"source": "source_pattern"}


def _delete_ids(service: Service, ids: list[int], *, yes: bool) -> Json:
    if len(ids) == 1:
        try:
            service.delete(f"/memory/{ids[0]}")
        except RefusedError as exc:
            if exc.status != 404:
                raise
            return {"success": True, "deleted_count": 0, "missing": ids}
        return {"success": True, "deleted_count": 1, "missing": []}
    confirm(f"Delete {counted(len(ids), 'memory')}?", yes=yes)
    return delete_all(service, ids)


def delete_all(service: Service, ids: list[int]) -> Json:
    """Delete memories, as many requests as it takes."""
    deleted, missing = 0, []
    for start in range(0, len(ids), limits.MAX_DELETED):
        some = ids[start : start + limits.MAX_DELETED]
        answer = service.post("/memory/delete-batch", {"ids": some})
        deleted += answer["deleted_count"]
        missing += answer["missing"]
    return {"success": True, "deleted_count": deleted, "missing": missing}


def json_object(text: str | None) -> dict[str, Any] | None:
    """What an option says in JSON. Raises `UsageError` when that is no object."""
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError as exc:
        raise UsageError(f"--metadata is no JSON: {exc}") from None
    if not isinstance(value, dict):
        raise UsageError('--metadata must be a JSON object, like {"kind": "note"}')
    return value
