"""Real passages where they are at hand, generated ones where not, always in the same order."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

DEFAULT_DATA_DIR = Path(__file__).resolve().parents[3] / "shared" / "data"
GLOSSES = "wordnet_glosses"
DIALOGUES = "sgd_dialogues"
_GENERATED = "generated sentences: set --data-dir for real ones"
_SYLLABLES = ("ka", "lo", "mi", "ren", "sta", "tu", "vel", "por", "dis", "ne", "qui", "sho")
_N_WORDS = 5_000


@dataclass(frozen=True, slots=True)
class Passage:
    """What is remembered, and a short name for it."""

    id: str
    title: str
    text: str

    @property
    def memory_text(self) -> str:
        """The passage under its title."""
        return f"{self.title}: {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Passages in a fixed random order."""

    name: str
    passages: Sequence[Passage]


def corpus_file(directory: Path) -> Path:
    """Where a collection in BEIR layout keeps its passages."""
    return directory / "corpus.jsonl.gz"


def read_passages(file: Path, limit: int | None = None) -> list[Passage]:
    """The first passages of a gzipped file, in order: lines of `{"_id", "title", "text"}`."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows = (json.loads(line) for line in islice(lines, limit))
        return [Passage(row["_id"], row["title"], row["text"]) for row in rows]


def shuffled_glosses(data_dir: Path) -> list[Passage]:
    """The WordNet glosses in a fixed random order."""
    passages = read_passages(corpus_file(data_dir / GLOSSES))
    return [passages[i] for i in np.random.default_rng(0).permutation(len(passages))]


def distinct_turns(data_dir: Path) -> list[str]:
    """What is said in the dialogues, in order, each text once."""
    with gzip.open(data_dir / DIALOGUES / "turns.jsonl.gz", "rt", encoding="utf-8") as lines:
        return list(dict.fromkeys(json.loads(line)["text"] for line in lines))


def load_corpus(data_dir: Path, n_passages: int) -> Corpus:
    """WordNet glosses when the directory has enough of them, else generated sentences."""
    if corpus_file(data_dir / GLOSSES).is_file():
        passages = shuffled_glosses(data_dir)
        if len(passages) >= n_passages:
            return Corpus(name=GLOSSES, passages=passages[:n_passages])
    return Corpus(name=_GENERATED, passages=generated_passages(n_passages))


def generated_passages(n: int) -> list[Passage]:
    """Sentences of 6 to 29 made-up words, frequent and rare ones as in a language."""
    rng = np.random.default_rng(0)
    n_syllables = rng.integers(1, 5, _N_WORDS)
    words = np.array(["".join(rng.choice(_SYLLABLES, size)) for size in n_syllables])
    lengths = rng.integers(6, 30, n)
    ranks = np.minimum(rng.zipf(1.2, int(lengths.sum())), _N_WORDS) - 1
    sentences = np.split(words[ranks], np.cumsum(lengths)[:-1])
    return [Passage(str(i), f"note {i}", " ".join(s)) for i, s in enumerate(sentences)]
