"""The tools: what a model is told about each, and what each does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from mcp_types import ToolAnnotations

from mcp_server import arguments, results, texts
from mcp_server.client import FaissClient

ArgumentsT = TypeVar("ArgumentsT", bound=arguments.Arguments)

Answer = tuple[str, results.Result]
"""The text of a result and its structured content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool(Generic[ArgumentsT]):
    """One tool."""

    name: str
    title: str
    description: str
    annotations: ToolAnnotations
    arguments: type[ArgumentsT]
    result: type[results.Result]
    run: Callable[[FaissClient, ArgumentsT], Awaitable[Answer]]


def _hints(*, reads: bool = False, destroys: bool = False, repeats: bool) -> ToolAnnotations:
    """`repeats`: a second call with the same arguments changes nothing more."""
    return ToolAnnotations(
        read_only_hint=reads,
        destructive_hint=destroys,
        idempotent_hint=repeats,
        open_world_hint=False,
    )


READS = _hints(reads=True, repeats=True)


async def _search(service: FaissClient, args: arguments.Search) -> Answer:
    answer = await service.search("/search", args.model_dump(exclude={"max_chars"}))
    memories, left_out = texts.bounded(answer["results"], args.max_chars)
    return texts.searched(args.query, memories, left_out), results.Searched.model_validate(
        {"query": args.query, "count": len(memories), "results": memories, "left_out": left_out}
    )


async def _add(service: FaissClient, args: arguments.Add) -> Answer:
    answer = await service.write("POST", "/memory/add", args.model_dump())
    return texts.added(answer["id"], args.source), results.Added.model_validate(answer)


async def _add_batch(service: FaissClient, args: arguments.AddBatch) -> Answer:
    body = args.model_dump(exclude_none=True)
    answer = await service.write("POST", "/memory/add-batch", body)
    return texts.added_batch(answer["results"]), results.AddedBatch.model_validate(answer)


async def _get(service: FaissClient, args: arguments.Get) -> Answer:
    memory = await service.get(f"/memory/{args.id}")
    memory["text"] = texts.excerpt(
        memory["text"], args.id, start=args.start, max_chars=args.max_chars
    )
    return texts.got(memory), results.Memory.model_validate(memory)


async def _update(service: FaissClient, args: arguments.Update) -> Answer:
    answer = await service.write("PATCH", f"/memory/{args.id}", args.model_dump(exclude={"id"}))
    [memory], _ = texts.bounded([answer], arguments.DEFAULT_MAX_CHARS)
    return texts.updated(memory), results.Memory.model_validate(memory)


async def _delete(service: FaissClient, args: arguments.Delete) -> Answer:
    answer = await service.write("DELETE", f"/memory/{args.id}")
    return (
        texts.deleted(answer["deleted_id"], answer["deleted_text"]),
        results.Deleted.model_validate(answer),
    )


async def _delete_by_source(service: FaissClient, args: arguments.DeleteBySource) -> Answer:
    answer = await service.write("POST", "/memory/delete-by-source", args.model_dump())
    text = texts.deleted_by_source(args.source_pattern, answer["deleted_count"])
    return text, results.DeletedBySource.model_validate(answer)


async def _list(service: FaissClient, args: arguments.ListMemories) -> Answer:
    answer = await service.get("/memories", args.model_dump(exclude={"max_chars"}))
    memories, left_out = texts.bounded(answer["memories"], args.max_chars)
    text = texts.listed(memories, answer["offset"], answer["total"], left_out)
    return text, results.Listed.model_validate(
        {**answer, "memories": memories, "left_out": left_out}
    )


async def _stats(service: FaissClient, args: arguments.Stats) -> Answer:
    answer = await service.get("/stats")
    return texts.stats(answer), results.StoreStats.model_validate(answer)


async def _is_novel(service: FaissClient, args: arguments.IsNovel) -> Answer:
    answer = await service.search("/memory/is-novel", args.model_dump())
    if answer["most_similar"]:
        [answer["most_similar"]], _ = texts.bounded(
            [answer["most_similar"]], arguments.DEFAULT_MAX_CHARS
        )
    return (
        texts.novel(answer["is_novel"], answer["most_similar"]),
        results.Novelty.model_validate(answer),
    )


TOOLS: dict[str, Tool[Any]] = {
    tool.name: tool
    for tool in (
        Tool(
            name="memory_search",
            title="Search memories",
            description=(
                "Recall what was stored in earlier conversations and notes, by meaning and by "
                "keywords. Use it before answering anything about the user, their projects, "
                "preferences, people or past decisions, and before saying that you do not know. "
                "Not for general knowledge. Percentages are similarity; low ones may be unrelated."
            ),
            annotations=READS,
            arguments=arguments.Search,
            result=results.Searched,
            run=_search,
        ),
        Tool(
            name="memory_add",
            title="Add a memory",
            description=(
                "Store one fact, decision or preference for all later conversations. Write it so "
                "that it makes sense alone: full names and dates, no `he` or `yesterday`. A very "
                "similar memory is skipped; to correct one use memory_update. Never store "
                "passwords, keys or what the user asked to forget."
            ),
            annotations=_hints(repeats=False),
            arguments=arguments.Add,
            result=results.Added,
            run=_add,
        ),
        Tool(
            name="memory_add_batch",
            title="Add several memories",
            description=(
                "Store up to 500 memories at once, all or none. Use it for notes split into "
                "separate facts; for a single one use memory_add."
            ),
            annotations=_hints(repeats=False),
            arguments=arguments.AddBatch,
            result=results.AddedBatch,
            run=_add_batch,
        ),
        Tool(
            name="memory_get",
            title="Read a memory",
            description=(
                "Read one memory in full by the id that another tool gave, with its metadata; "
                "`start` reads on in a long text. To find memories use memory_search."
            ),
            annotations=READS,
            arguments=arguments.Get,
            result=results.Memory,
            run=_get,
        ),
        Tool(
            name="memory_update",
            title="Change a memory",
            description=(
                "Replace the text, source or metadata of one memory when what it says has "
                "changed or is wrong. What is not given stays. The old text is gone afterwards."
            ),
            annotations=_hints(destroys=True, repeats=True),
            arguments=arguments.Update,
            result=results.Memory,
            run=_update,
        ),
        Tool(
            name="memory_delete",
            title="Delete a memory",
            description=(
                "Delete one memory by id, for good. Use it only when the user asks to forget "
                "something or a memory is plainly wrong; find the id with memory_search first."
            ),
            annotations=_hints(destroys=True, repeats=True),
            arguments=arguments.Delete,
            result=results.Deleted,
            run=_delete,
        ),
        Tool(
            name="memory_delete_by_source",
            title="Delete all memories of a source",
            description=(
                "Delete every memory whose source contains a text, for good. Look with "
                "memory_list and the same `source` first, and ask the user to confirm."
            ),
            annotations=_hints(destroys=True, repeats=True),
            arguments=arguments.DeleteBySource,
            result=results.DeletedBySource,
            run=_delete_by_source,
        ),
        Tool(
            name="memory_list",
            title="List memories",
            description=(
                "Browse memories in the order they were added, oldest first, optionally of one "
                "source. Use it to review or count what is stored; to find something use "
                "memory_search."
            ),
            annotations=READS,
            arguments=arguments.ListMemories,
            result=results.Listed,
            run=_list,
        ),
        Tool(
            name="memory_stats",
            title="Memory statistics",
            description=(
                "How many memories there are, their model, size, backups and last change. Use it "
                "when the user asks about the memory itself or to check that it works."
            ),
            annotations=READS,
            arguments=arguments.Stats,
            result=results.StoreStats,
            run=_stats,
        ),
        Tool(
            name="memory_is_novel",
            title="Check for a similar memory",
            description=(
                "Whether a text says something that no memory says yet, and which is nearest. "
                "Use it to choose between adding and updating; memory_add already skips near "
                "duplicates by itself."
            ),
            annotations=READS,
            arguments=arguments.IsNovel,
            result=results.Novelty,
            run=_is_novel,
        ),
    )
}
