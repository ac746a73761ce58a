"""Finding memories: search, batch search, timeline, novelty."""

from __future__ import annotations

import functools
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timezone

import numpy as np
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from deployments import rendering
from deployments.http.callers import among, within
from deployments.http.filters import where_of
from deployments.http.json_route import json_response, json_router
from deployments.http.needs import READ, READ_SEVERAL, needs
from deployments.http.openapi import problems
from deployments.http.request_trace import RequestTrace, trace_of
from deployments.http.services import Services, services_of
from engine.operations.operation import Operation
from engine.operations.reads import Nearest, Search, SearchAmong, Timeline
from engine.records import EmbeddedQuery, QueryPieces, Recency, SearchHits, SearchQuery
from wire.answers import BatchSearchAnswer, IsNovelAnswer, SearchAnswer, TimelineAnswer
from wire.requests import BatchSearchRequest, IsNovelRequest, SearchRequest, TimelineRequest

Found = list[SearchHits]

router = json_router(tag="search")


def _search_query(body: SearchRequest, pieces: QueryPieces) -> SearchQuery:
    return SearchQuery(
        text=body.query,
        k=body.k,
        hybrid=body.hybrid,
        threshold=body.threshold,
        vector_weight=body.vector_weight,
        where=where_of(body),
        fusion=body.fusion,
        min_score=body.min_score,
        neighbours=body.neighbours,
        order=body.order,
        recency=None if body.recency is None else Recency(**body.recency.model_dump()),
        explain=body.explain,
        pieces=pieces if body.hybrid and body.fusion == "score" else None,
    )


@router.post(
    "/search", operation_id="searchMemory", response_model=SearchAnswer, responses=problems()
)
@needs(READ_SEVERAL)
async def search(body: SearchRequest, request: Request) -> Response:
    """Find the memories closest to a query, by meaning and by keywords."""
    services, trace = services_of(request), trace_of(request)
    search_there = _searching(request, body)
    asked = await services.embed_query(body.query, trace)
    with trace.stage("index"):
        [hits] = await services.index.ask(
            search_there(asked.vector[None], [_search_query(body, asked.pieces)])
        )
    trace.k, trace.n_hits = body.k, len(hits)
    are_named = body.namespaces is not None
    return json_response(rendering.search_answer(body.query, hits, are_named=are_named))


def _searching(request: Request, body: SearchRequest) -> Callable[..., Operation[Found]]:
    """What makes the operation of a search where it is to be. Raises 403."""
    if body.namespaces is None:
        return functools.partial(Search, within=within(request))
    return functools.partial(SearchAmong, among=among(request, body.namespaces))


@router.post(
    "/search/batch",
    operation_id="searchMemoryBatch",
    response_model=BatchSearchAnswer,
    responses=problems(),
)
@needs(READ_SEVERAL)
async def search_batch(body: BatchSearchRequest, request: Request) -> Response:
    """Answer up to 100 searches at once, in order."""
    services, trace = services_of(request), trace_of(request)
    searching = [_searching(request, one) for one in body.queries]
    asked = await services.embed_queries([one.query for one in body.queries], trace)
    pages = _answers(services, body.queries, searching, asked, trace)
    first = await anext(pages)  # what fails at once is answered as such
    return StreamingResponse(_one_object(first, pages), media_type="application/json")


async def _answers(
    services: Services,
    bodies: Sequence[SearchRequest],
    searching: Sequence[Callable[..., Operation[Found]]],
    embedded: Sequence[EmbeddedQuery],
    trace: RequestTrace,
) -> AsyncIterator[bytes]:
    """The answers to searches as JSON objects with commas between them, some at a time."""
    vectors = np.stack([query.vector for query in embedded])
    queries = [
        _search_query(one, query.pieces) for one, query in zip(bodies, embedded, strict=True)
    ]
    n_answered = trace.n_hits = 0
    while n_answered < len(queries):
        # As many at once as are for the same namespaces.
        where, alike = next(itertools.groupby(bodies[n_answered:], key=lambda one: one.namespaces))
        at = slice(n_answered, n_answered + len(list(alike)))
        with trace.stage("index"):
            found = await services.index.ask(searching[n_answered](vectors[at], queries[at]))
        answers = [
            to_json(rendering.search_answer(one.query, hits, are_named=where is not None))
            for one, hits in zip(bodies[at], found, strict=False)
        ]
        trace.n_hits += sum(map(len, found))
        n_answered += len(answers)
        yield b",".join(answers)


async def _one_object(first: bytes, others: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield b'{"results":[' + first
    async for page in others:
        yield b"," + page
    yield b"]}\n"


@router.post(
    "/timeline",
    operation_id="memoryTimeline",
    response_model=TimelineAnswer,
    responses=problems(),
)
@needs(READ)
async def timeline(body: TimelineRequest, request: Request) -> Response:
    """Show memories in order of time, by day, with what stands beside each in its source."""
    services, trace = services_of(request), trace_of(request)
    asked = None if body.query is None else await services.embed_query(body.query, trace)
    query = SearchQuery(
        text=body.query or "",
        k=body.k,
        where=where_of(body),
        min_score=body.min_score,
        order=body.order,
        pieces=None if asked is None else asked.pieces,
    )
    with trace.stage("index"):
        entries = await services.index.ask(
            Timeline(query, None if asked is None else asked.vector, within=within(request))
        )
    trace.k, trace.n_hits = body.k, len(entries)
    return json_response(rendering.timeline(entries, body.timezone or timezone.utc))


@router.post(
    "/memory/is-novel",
    operation_id="isNovel",
    response_model=IsNovelAnswer,
    responses=problems(),
)
@needs(READ)
async def is_novel(body: IsNovelRequest, request: Request) -> Response:
    """Tell whether a text says something that no memory says yet."""
    services, trace = services_of(request), trace_of(request)
    asked = await services.embed_query(body.text, trace)
    with trace.stage("index"):
        neighbour = await services.index.ask(
            Nearest(asked.vector, body.text, within=within(request))
        )
    if neighbour is None:
        return json_response(
            IsNovelAnswer(
                is_novel=True,
                threshold=body.threshold,
                most_similar=None,
                says_the_same=False,
            )
        )
    # The rounded value decides, as callers see it: a text is never novel beside itself for
    # a cosine of 0.99999994.
    similarity = rendering.score(neighbour.similarity)
    nearest = rendering.nearest(neighbour.memory, similarity)
    is_known = similarity >= body.threshold if neighbour.is_comparable else neighbour.says_the_same
    return json_response(
        IsNovelAnswer(
            is_novel=not is_known,
            threshold=body.threshold,
            most_similar=nearest,
            says_the_same=neighbour.says_the_same,
        )
    )
