"""Vectors that writes left to be made: windows of long texts, and what older releases got wrong.

A write waits for the first windows of what it stores. A thread makes the others afterwards, memory
by memory in the order of their last change. Searches are right meanwhile; they only do not find by
meaning yet what stands far behind in a long text. How far it has come is kept in the store, so an
interrupted pass goes on, and a store of an older release is gone through once, short texts too:
those that the model does not know had a vector that says nothing, and none was known by its gist.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pydantic import TypeAdapter

from engine.errors import EngineError
from engine.model.tokeniser import MAX_PIECES, TextFacts
from engine.records import Embeddings, FloatMatrix, MemoryId
from engine.store.database import StoredText
from engine.store.layout.rows import UPKEEP, UPKEEP_FIRST_PASS
from engine.writing.live_state import LiveState
from engine.writing.write_group import WriteGroup
from engine.writing.writer import Writer

_TEXTS_A_STEP = 64
_LAST_ID = (1 << 63) - 1
_WINDOWS_A_CALL = 128
_RETRY_S = 5.0
_NONE = TypeAdapter(None)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorTools:
    """What upkeep needs of the model."""

    read: Callable[[Sequence[str]], list[TextFacts]]
    """How long texts are, and whether the model knows them; cheap."""
    embed: Callable[[Sequence[str]], Embeddings]
    """All windows of texts. May raise `EngineError`."""


class Upkeep:
    """The thread that makes them."""

    def __init__(self, state: LiveState, writer: Writer, tools: VectorTools) -> None:
        self._state = state
        self._writer = writer
        self._tools = tools
        self._epoch = ""
        self._mark = (0, 0)
        self._wanted = threading.Event()
        self._wanted.set()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="upkeep", daemon=True)
        self._thread.start()

    def notice_write(self) -> None:
        """A write has been committed."""
        self._wanted.set()

    def close(self) -> None:
        """Stop before the next step; what is left is done after the next start."""
        self._closing.set()
        self._wanted.set()

    def _work(self) -> None:
        while not self._closing.is_set():
            self._wanted.wait()
            self._wanted.clear()
            try:
                while not self._closing.is_set() and self._step():
                    pass
            except Exception as exc:  # noqa: BLE001 - a thread must live on; tried again
                if self._closing.is_set():
                    return
                known = isinstance(exc, EngineError)
                _log.warning("vectors wait to be made: %s", exc if known else type(exc).__name__)
                self._closing.wait(_RETRY_S)
                self._wanted.set()

    def _step(self) -> bool:
        """Look after the next texts; whether there were any."""
        with self._state.store_lock.shared():
            store = self._state.store
            if store.epoch != self._epoch:
                self._epoch, self._mark = store.epoch, _parsed(store.fact(UPKEEP))
            is_first_pass = store.fact(UPKEEP_FIRST_PASS) is None
            # A piece is made of a byte at least.
            least_bytes = 0 if is_first_pass else MAX_PIECES - 1
            reached = store.lsn  # before the look: what comes after it is looked at next time
            texts = store.texts_after(*self._mark, least_bytes=least_bytes, limit=_TEXTS_A_STEP)
        if texts:
            self._look_after(texts, with_gists=is_first_pass)
            self._mark = (texts[-1].lsn, texts[-1].id)
        elif is_first_pass:
            self._store({}, {UPKEEP_FIRST_PASS: "1"})
        else:
            self._mark = (reached, _LAST_ID)
        return bool(texts)

    def _look_after(self, texts: Sequence[StoredText], *, with_gists: bool) -> None:
        """Make what is wanting; how far it has come is stored with the last of it."""
        facts = self._tools.read([text.text for text in texts])
        wanting = [
            (text, fact.n_windows)
            for text, fact in zip(texts, facts, strict=True)
            if _is_wanting(text, fact)
        ]
        for part in _parts(wanting):
            made = self._tools.embed([text.text for text in part])
            self._store({text: made.of(at) for at, text in enumerate(part)}, {})
        self._store(
            {},
            {UPKEEP: f"{texts[-1].lsn} {texts[-1].id}"},
            gists_of=[text.id for text in texts] if with_gists else [],
        )

    def _store(
        self,
        vectors: dict[StoredText, FloatMatrix],
        facts: dict[str, str],
        gists_of: Sequence[MemoryId] = (),
    ) -> None:
        """Store vectors of texts that are as they were, and facts. Durable when this returns.

        Memories of `gists_of` can be found from then on by what they say.
        """
        epoch = self._epoch

        def run(group: WriteGroup) -> None:
            if group.transaction.get_meta("epoch") != epoch:
                return  # restored meanwhile: that history has facts of its own
            for text, matrix in vectors.items():
                if (session := group.session_with_id(text.namespace_id)) is not None:
                    session.set_vectors(text.id, matrix, as_of_lsn=text.lsn)
            group.transaction.add_digests(gists_of)
            for name, value in facts.items():
                group.transaction.set_meta(name, value)

        self._writer.submit(
            run, _NONE, request_id=f"upkeep {uuid.uuid4().hex}", weight=len(vectors)
        ).result()


def _is_wanting(text: StoredText, fact: TextFacts) -> bool:
    return text.n_windows < fact.n_windows or (text.says_something and not fact.is_known)


def _parts(wanting: Sequence[tuple[StoredText, int]]) -> Iterator[list[StoredText]]:
    """Texts of some `_WINDOWS_A_CALL` windows together; one of more is a part of its own."""
    part: list[StoredText] = []
    n_windows = 0
    for text, n in wanting:
        if part and n_windows + n > _WINDOWS_A_CALL:
            yield part
            part, n_windows = [], 0
        part.append(text)
        n_windows += n
    if part:
        yield part


def _parsed(mark: str | None) -> tuple[int, int]:
    lsn, memory_id = (mark or "0 0").split()
    return int(lsn), int(memory_id)
