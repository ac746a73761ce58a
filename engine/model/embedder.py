"""Texts to embeddings, with one ONNX session.

Texts are embedded in runs of exactly equal token length: nothing is padded, activations stay
in the processor's cache, and a text's embedding does not depend on its neighbours. A run is
short, so that a caller can let a query pass between two runs of bulk work.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from engine.model.files import (
    TOKENISER_FILE,
    Precision,
    damaged,
    graph_file,
    read_model_manifest,
)
from engine.model.tokeniser import MAX_PIECES, Tokeniser
from engine.records import EmbeddedQuery, FloatMatrix, FloatVector, ModelIdentity, QueryPieces

MAX_RUN_TOKENS = 256
"""Tokens of one run: enough to keep the processor busy, little enough to stay in its cache."""

MAX_QUERY_PIECES = 128
"""Pieces of a query whose hidden rows are kept: 96 KiB of them."""


HiddenRows = npt.NDArray[np.float32]
"""Shape (…, n_tokens, dim): what an embedding is the normalised sum of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingRun:
    """Texts of equal token length that are embedded together."""

    rows: npt.NDArray[np.int64]
    """Shape (n,): which texts of the batch these are."""
    windows: npt.NDArray[np.int64]
    """Shape (n,): which of their windows; 0 is the first."""
    token_ids: npt.NDArray[np.int64]
    """Shape (n, n_tokens), at most `MAX_RUN_TOKENS` in all."""
    known: npt.NDArray[np.bool_]
    """Shape (n,): whether the model knows enough of a text to say anything."""


class _Window(NamedTuple):
    row: int
    number: int
    ids: list[int]
    known: bool


def _run_of(windows: Sequence[_Window]) -> EmbeddingRun:
    return EmbeddingRun(
        rows=np.array([window.row for window in windows], np.int64),
        windows=np.array([window.number for window in windows], np.int64),
        token_ids=np.array([window.ids for window in windows], np.int64),
        known=np.array([window.known for window in windows]),
    )


class Embedder:
    """One model in one precision. Several threads may call it at once."""

    def __init__(self, model_dir: Path, *, precision: Precision) -> None:
        """Load the model; the weights' hash is taken from set-up's record, not computed anew.

        Args:
            model_dir: a directory that `scripts.setup_model` filled.
            precision: which of its graphs to run.

        Raises:
            ModelNotFoundError: files are missing or damaged; says what to run.
        """
        manifest = read_model_manifest(model_dir)
        for name in (TOKENISER_FILE, graph_file(precision)):
            if name not in manifest.files or not manifest.files[name].matches(model_dir / name):
                raise damaged(model_dir, name)
        self._tokeniser = Tokeniser(model_dir)
        self._session = _open_session(model_dir, graph_file(precision))
        self.identity = ModelIdentity(
            name=manifest.name,
            dim=self._session.get_outputs()[0].shape[1],
            precision=precision,
            fingerprint=manifest.fingerprint,
        )

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self.identity.dim

    def embed(self, texts: Sequence[str]) -> FloatMatrix:
        """Embed texts, in order.

        Returns:
            Shape (len(texts), dim), each row L2-normalised; all zeros for a text that the model
            does not know: such an embedding is like no other.

        Raises:
            InvalidInputError: a text that is not valid Unicode.
        """
        embeddings = np.empty((len(texts), self.dim), np.float32)
        for run in self.plan_runs(texts):
            embeddings[run.rows] = self.embed_run(run)
        return embeddings

    def plan_runs(
        self, texts: Sequence[str], max_windows: Sequence[int] | None = None
    ) -> list[EmbeddingRun]:
        """Tokenise texts and split them into runs; together these cover every window once.

        Args:
            texts: to be embedded.
            max_windows: of each text, >= 1; by default the first window of each.

        Raises:
            InvalidInputError: a text that is not valid Unicode.
        """
        by_length: dict[int, list[_Window]] = defaultdict(list)
        for window in self._windows(texts, max_windows or [1] * len(texts)):
            by_length[len(window.ids)].append(window)
        runs = []
        for n_tokens, windows in sorted(by_length.items()):
            step = max(1, MAX_RUN_TOKENS // n_tokens)
            runs += [_run_of(windows[at : at + step]) for at in range(0, len(windows), step)]
        return runs

    def _windows(self, texts: Sequence[str], max_windows: Sequence[int]) -> Iterator[_Window]:
        tokeniser = self._tokeniser
        for row, ids in enumerate(tokeniser.encode(texts)):
            yield _Window(row, 0, ids, tokeniser.knows(texts[row], ids))
            if len(ids) == MAX_PIECES and max_windows[row] > 1:
                later = tokeniser.later_windows(texts[row], max_windows[row] - 1)
                for number, more in enumerate(later, start=1):
                    yield _Window(row, number, more, tokeniser.knows_most(more))

    def embed_run(self, run: EmbeddingRun) -> FloatMatrix:
        """Embed one run: shape (len(run.rows), dim), in the order of its rows."""
        embeddings: FloatMatrix
        [embeddings] = self._session.run(["sentence_embedding"], {"input_ids": run.token_ids})
        embeddings[~run.known] = 0.0
        return embeddings

    def read_run(self, run: EmbeddingRun) -> tuple[FloatMatrix, HiddenRows]:
        """The embeddings of a run, and the hidden rows whose sums they are.

        Returns:
            Shapes (len(run.rows), dim) and (len(run.rows), n_tokens, dim).
        """
        embeddings, rows = self._session.run(
            ["sentence_embedding", "hidden_rows"], {"input_ids": run.token_ids}
        )
        embeddings[~run.known] = 0.0
        return embeddings, rows

    def read(self, text: str) -> EmbeddedQuery:
        """Embed one query, and keep what its pieces say.

        Raises:
            InvalidInputError: not valid Unicode.
        """
        [run] = self.plan_runs([text])
        embeddings, rows = self.read_run(run)
        return self.as_query(text, embeddings[0], rows[0])

    def as_query(self, text: str, embedding: FloatVector, rows: HiddenRows) -> EmbeddedQuery:
        """A query from its embedding and its hidden rows, shape (n_tokens, dim)."""
        words, numbers = self._tokeniser.words(text, MAX_QUERY_PIECES)
        pieces = QueryPieces(
            rows=rows[: len(numbers)].astype(np.float16),
            word_of=np.array(numbers, np.int16),
            words=words,
        )
        return EmbeddedQuery(vector=embedding, pieces=pieces)

    def count_pieces(self, text: str) -> int:
        """Pieces of a whole text, specials included; see `Tokeniser.count_pieces`."""
        return self._tokeniser.count_pieces(text)


def _open_session(model_dir: Path, name: str) -> ort.InferenceSession:
    """Load a graph to run on the calling thread alone; parallelism comes from callers."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # Plans for every shape seen would only pile up: lengths differ from run to run.
    options.enable_mem_pattern = False
    try:
        return ort.InferenceSession(
            str(model_dir / name), options, providers=["CPUExecutionProvider"]
        )
    except Exception as exc:
        raise damaged(model_dir, name) from exc
