"""Queries for what stands late in long texts, past the pieces that one vector holds."""

from __future__ import annotations

from collections import Counter

import numpy as np

from benchmarks.relevance.judged import JudgedQuery, JudgedSet
from engine.model.embedder import Embedder
from engine.model.tokeniser import MAX_PIECES
from engine.words.analyser import analyse

_PHRASE_WORDS = 6
_LEAST_LETTERS = 4


def late_queries(
    judged: JudgedSet, embedder: Embedder, n_queries: int
) -> dict[str, list[JudgedQuery]]:
    """Ask for documents by a word of their own and by words in a row, both past the first window.

    Returns:
        At most `n_queries` of each of `word` and `phrase`; none where no text is so long.
    """
    rng = np.random.default_rng(0)
    terms = [set(analyse(text)) for text in judged.texts]
    df = Counter(term for of_document in terms for term in of_document)
    queries: dict[str, list[JudgedQuery]] = {"word": [], "phrase": []}
    for row in rng.permutation(len(judged.documents)).tolist():
        document = judged.documents[row]
        words = document.text.split()
        late = words[_first_late(words, embedder) :]
        own = [word for word in late if _is_telling(word) and {df[t] for t in analyse(word)} == {1}]
        if len(late) < _PHRASE_WORDS or not own or len(queries["word"]) == n_queries:
            continue
        start = int(rng.integers(0, len(late) - _PHRASE_WORDS + 1))
        phrase = " ".join(late[start : start + _PHRASE_WORDS])
        for form, text in (("word", own[int(rng.integers(len(own)))]), ("phrase", phrase)):
            queries[form].append(
                JudgedQuery(
                    id=f"{document.id} {form}",
                    text=text,
                    metadata=document.metadata,
                    grades={document.id: 1},
                )
            )
    return queries


def _is_telling(word: str) -> bool:
    return word.isalpha() and len(word) >= _LEAST_LETTERS


def _first_late(words: list[str], embedder: Embedder) -> int:
    """The position of the first word that no piece of the first window belongs to."""
    low, high = 0, len(words)
    while low < high:
        middle = (low + high) // 2
        if embedder.count_pieces(" ".join(words[: middle + 1])) > MAX_PIECES:
            high = middle
        else:
            low = middle + 1
    return low + 1 if low < len(words) else low
