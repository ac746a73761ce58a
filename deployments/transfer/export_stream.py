"""An export as it is read from the index: header, memories, footer, one JSON object a line."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import datetime, timezone

from pydantic_core import to_json

from deployments.calls.operations import ReadExport
from deployments.calls.protocols import IndexClient
from engine.errors import EngineError, NotReadyError
from engine.operations.exports import EndExport
from engine.operations.operation import Within
from engine.records import ModelIdentity
from engine.store.exports import ExportFacts

FORMAT = 1
_PAGE_BYTES = 1 << 20


async def export_lines(
    index: IndexClient,
    facts: ExportFacts,
    identity: ModelIdentity,
    within: Within,
    *,
    check_caller: Callable[[], None],
    tells_lsn: bool = True,
) -> AsyncIterator[bytes]:
    """Lines of an open export, some at a time; it is closed at the end, whatever that is.

    An export without its footer is incomplete; its last line then says why, if it can. The LSN
    counts the writes to all namespaces, so that not everybody is told it.
    `check_caller` raises once the caller may read no more.
    """
    header = {
        "type": "header",
        "format": FORMAT,
        "model": identity.name,
        "dimension": identity.dim,
        "precision": identity.precision,
        "fingerprint": identity.fingerprint,
        **({"lsn": facts.lsn} if tells_lsn else {}),
        "total": facts.total,
        "created": datetime.now(timezone.utc).isoformat(timespec="microseconds"),
    }
    n_memories = 0
    is_open = True
    try:
        yield to_json(header) + b"\n"
        while page := await index.ask(ReadExport(facts.export_id, _PAGE_BYTES, within=within)):
            check_caller()
            n_memories += page.count(b"\n")
            yield page
        if n_memories == facts.total:
            yield to_json({"type": "footer", "count": n_memories}) + b"\n"
        else:
            # A page whose answer was lost is not read again: asked once more comes the next one.
            yield _problem(f"{n_memories} of {facts.total} memories came; export again")
    except EngineError as exc:
        is_open = not isinstance(exc, NotReadyError)
        yield _problem(str(exc))
    finally:
        if is_open:
            with suppress(EngineError):
                await asyncio.shield(index.ask(EndExport(facts.export_id, within=within)))


def _problem(reason: str) -> bytes:
    message = f"{reason}; this export is incomplete"
    return to_json({"type": "error", "message": message}) + b"\n"


async def gzipped(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same, packed as one gzip member."""
    packer = zlib.compressobj(level=1, wbits=31)
    async for piece in pieces:
        # Elsewhere than on the event loop: a piece takes milliseconds.
        if packed := await asyncio.to_thread(packer.compress, piece):
            yield packed
    yield packer.flush()
