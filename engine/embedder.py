"""Texts to embeddings, with one ONNX session.

Texts are embedded in runs of exactly equal token length: nothing is padded, activations stay
in the processor's cache, and a text's embedding does not depend on its neighbours. A run is
short, so that a caller can let a query pass between two runs of bulk work.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from engine.model_files import (
    TOKENISER_FILE,
    Precision,
    damaged,
    graph_file,
    read_manifest,
)
from engine.records import FloatMatrix, ModelIdentity
from engine.tokeniser import Tokeniser

MAX_RUN_TOKENS = 256
"""Tokens of one run: enough to keep the processor busy, little enough to stay in its cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingRun:
    """Texts of equal token length that are embedded together."""

    rows: npt.NDArray[np.int64]
    """Shape (n,): which texts of the batch these are."""
    token_ids: npt.NDArray[np.int64]
    """Shape (n, n_tokens), at most `MAX_RUN_TOKENS` in all."""


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
        manifest = read_manifest(model_dir)
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
            Shape (len(texts), dim), each row L2-normalised.

        Raises:
            InvalidInputError: a text that is not valid Unicode.
        """
        embeddings = np.empty((len(texts), self.dim), np.float32)
        for run in self.plan_runs(texts):
            embeddings[run.rows] = self.embed_run(run)
        return embeddings

    def plan_runs(self, texts: Sequence[str]) -> list[EmbeddingRun]:
        """Tokenise texts and split them into runs; together these cover every text once.

        Raises:
            InvalidInputError: a text that is not valid Unicode.
        """
        encoded = self._tokeniser.encode(texts)
        rows_by_length: dict[int, list[int]] = defaultdict(list)
        for row, ids in enumerate(encoded):
            rows_by_length[len(ids)].append(row)
        runs = []
        for n_tokens, rows in sorted(rows_by_length.items()):
            step = max(1, MAX_RUN_TOKENS // n_tokens)
            for start in range(0, len(rows), step):
                part = rows[start : start + step]
                token_ids = np.array([encoded[row] for row in part], np.int64)
                runs.append(EmbeddingRun(rows=np.array(part, np.int64), token_ids=token_ids))
        return runs

    def embed_run(self, run: EmbeddingRun) -> FloatMatrix:
        """Embed one run: shape (len(run.rows), dim), in the order of its rows."""
        embeddings: FloatMatrix = self._session.run(None, {"input_ids": run.token_ids})[0]
        return embeddings

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
