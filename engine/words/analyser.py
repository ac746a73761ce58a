"""From text to the terms of the keyword index: pure functions, the same for memories and queries.

A text is cut into chunks: words, with the punctuation that joins them (`user_service`, `v2.3.1`,
`src/app/main.py`, `jane@example.org`). A compound chunk yields itself and its parts, level by
level, so that any part finds it and it ranks best for itself; hyphens and underscores fall away
and case folds, so that `user-service`, `user_service` and `UserService` are the same term:

```
src/user_service.py ─► src/userservice.py · src · userservice.py · userservice · user · servic · py
```

Words are folded (`engine.words.folding`) and stemmed (Snowball English). Scripts written without
spaces yield characters and pairs of characters, an emoji sequence itself and its parts. Numbers and
dates are also found in their plain form (`engine.words.figures`). Time is linear in the text
whatever it holds.

Function words (the, of, what) are never lost, but a text counts each once: Okapi's epsilon gives
the commonest of them a quarter of the average idf, and would rank by how often they occur. A query
leaves them out while it has other words. In capitals (IT, WHO, vitamin A) they are other words.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import chain, pairwise
from typing import Final

import Stemmer

from engine.words.figures import plain_figures, spelled_figures
from engine.words.folding import EMOJI, MARKS, fold, normalise

ANALYSER: Final = f"3, {Stemmer.version()}, Unicode {unicodedata.unidata_version}"
"""Whose terms these are; the number changes with this module's answers."""

MAX_TERM_LENGTH: Final = 128
"""Longest term, in characters; what is longer is cut."""

_MAX_IDENTIFIER_LENGTH: Final = 64  # humps in anything longer are those of a base64 blob
_MAX_CACHED_LENGTH: Final = 40
_MAX_CACHED_CHUNKS: Final = 1 << 16

# Thai, Lao, Tibetan, Burmese, Khmer, Tai, Javanese, Yi, bopomofo, kana, Han, Hangul.
_UNSPACED: Final = (
    "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf\u1b00-\u1b7f\u3005\u3007"
    "\u3040-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua4cf\ua980-\uaa7f"
    "\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
)
_UNSPACED_RUN: Final = re.compile(f"([{_UNSPACED}]+)")
# With its vowel signs and tones, and with what Khmer and Burmese write below it: letters alone say
# no more than a, b and c.
_CHARACTER: Final = re.compile(rf".(?:[{MARKS}]+(?:(?<=[\u17d2\u1039]).)?)*")

_TONED: Final = f"[{EMOJI}](?:[\U0001f3fb-\U0001f3ff]|[\U000e0020-\U000e007f]+)?"
_FLAG: Final = "[\U0001f1e6-\U0001f1ff]{2}"
_KEYCAP: Final = "[0-9#*]\u20e3"
_EMOJI_SEQUENCE: Final = f"{_TONED}(?:\u200d{_TONED})*"
_PICTURES: Final = "|".join([_KEYCAP, _FLAG, _EMOJI_SEQUENCE])
_PICTURE: Final = re.compile(_PICTURES)
_PICTURE_PART: Final = re.compile(f"[0-9{EMOJI}]")


def _chunk_pattern(marks: str = "", pictures: str = "") -> re.Pattern[str]:
    """Words joined by punctuation, with the dot of `.NET` and the tail of `C++` and `C#`."""
    word = rf"\w[\w{marks}]*"
    group = r"(?<=\d.)(?=(?:\d\d[,٬]){0,3}\d{3}(?!\d))"  # thousands, lakhs
    cents = r"(?<=\.\d{3}.)(?=\d\d?(?!\d))"
    joint = rf"(?:://|::|\+\+|[/\\][.@~]?|[.:@#?=&%+'٫-]|[,٬](?:{group}|{cents}))"
    words = rf"(?:(?<![\w.])\.(?=[^\W\d_]))?{word}(?:{joint}{word})*(?:\+\+|#)?"
    return re.compile(f"{pictures}|{words}" if pictures else words)


_ASCII_CHUNK: Final = _chunk_pattern()
_CHUNK: Final = _chunk_pattern(MARKS, _PICTURES)

_POSSESSIVE: Final = re.compile(r"'s\b", re.IGNORECASE)
_CONTRACTION: Final = re.compile(r"'(?=(?:t|d|m|ll|re|ve)\b)", re.IGNORECASE)
# How a chunk comes apart: locations, then names, then words.
_SEPARATORS: Final = (re.compile(r"[/\\:@?=&%]+"), re.compile(r"[.'+#-]+"), re.compile("_+"))
_HUMPS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_VERSION: Final = re.compile(r"[vV](\d+)")
_UNWRITTEN: Final = re.compile("[-_']+")

_ACRONYM: Final = re.compile(r"[^\W\d_](?:[.&][^\W\d_])+")

# Pronouns, articles, auxiliaries, prepositions and conjunctions, less those that are also names or
# nouns (us, may, will, might, can, own).
_FUNCTION_WORDS: Final = re.findall(
    r"\S+",
    "a about above after again against all am an and any are as at be because been before being "
    "below between both but by could did do does doing down during e.g each few for from further "
    "had has have having he her here hers herself him himself his how i i.e if in into is it its "
    "itself me more most must my myself no nor not of off on once only or other our ours ourselves "
    "out over same shall she should so some such than that the their theirs them themselves then "
    "there these they this those through to too under until up very was we were what when where "
    "which while who whom why with would you your yours yourself yourselves",
)
_FUNCTION_CHUNKS: Final = frozenset(
    [*_FUNCTION_WORDS, "I", *(word.capitalize() for word in _FUNCTION_WORDS if len(word) > 1)]
)

_stemmer: Final = Stemmer.Stemmer("english", 0)
_stemmer_lock: Final = threading.Lock()  # a stemmer keeps the word it works on


def analyse(text: str) -> list[str]:
    """Return the terms of a text, repeated as often as they count; function words come last.

    Safe to call from several threads. A text without a letter, digit or emoji has no terms.
    """
    chunks = _chunks(text)
    content = [chunk for chunk in chunks if chunk not in _FUNCTION_CHUNKS]
    terms = _terms(content) + spelled_figures(chunks)
    if len(content) < len(chunks):
        terms += dict.fromkeys(_terms(filter(_FUNCTION_CHUNKS.__contains__, chunks)))
    return terms


def analyse_query(text: str) -> list[str]:
    """Return the terms of `analyse(text)` to search for: function words only if all are."""
    chunks = _chunks(text)
    terms = _terms(chunk for chunk in chunks if chunk not in _FUNCTION_CHUNKS)
    return terms + spelled_figures(chunks) or analyse(text)


def words_of_query(text: str) -> dict[str, tuple[str, ...]]:
    """The words behind the terms of `analyse_query(text)`, as they are written, with their terms.

    A number that is spelled in several words stands for itself, in digits.
    """
    chunks = _chunks(text)
    words = {chunk: _chunk_terms[chunk] for chunk in chunks if chunk not in _FUNCTION_CHUNKS}
    words.update((figure, (figure,)) for figure in spelled_figures(chunks))
    found = {word: terms for word, terms in words.items() if terms}
    return found or {chunk: _chunk_terms[chunk] for chunk in chunks}


def _chunks(text: str) -> list[str]:
    if text.isascii():
        return _ASCII_CHUNK.findall(text)
    return _CHUNK.findall(normalise(text))


def _terms(chunks: Iterable[str]) -> list[str]:
    return list(chain.from_iterable(map(_chunk_terms.__getitem__, chunks)))


class _ChunkTerms(dict[str, tuple[str, ...]]):
    """The terms of chunks already seen: text repeats its words, and stemming is the cost."""

    def __missing__(self, chunk: str) -> tuple[str, ...]:
        terms = tuple(_terms_of_chunk(chunk))
        if len(chunk) <= _MAX_CACHED_LENGTH:
            if len(self) >= _MAX_CACHED_CHUNKS:
                self.clear()
            self[chunk] = terms
        return terms


_chunk_terms: Final = _ChunkTerms()


def _terms_of_chunk(chunk: str) -> Iterable[str]:
    """The terms of one chunk, its spelling folded."""
    if chunk.isascii():
        return _terms_of_word(chunk)
    if _PICTURE.match(chunk):
        return dict.fromkeys([chunk[:MAX_TERM_LENGTH], *_PICTURE_PART.findall(chunk)])
    bare = fold(chunk)
    if bare.casefold() in _FUNCTION_CHUNKS:  # thé is not the
        return [unicodedata.normalize("NFC", chunk).casefold()[:MAX_TERM_LENGTH]]
    return _terms_of_word(bare)


def _terms_of_word(word: str) -> list[str]:
    """The word as a whole and its parts, then the numbers and dates in it in their plain form."""
    parts = word.split(",")  # which joins digits only
    terms = [*chain.from_iterable(map(_parts, parts))]
    return terms + [term for term in plain_figures(word) if term not in terms]


def _parts(word: str) -> Iterator[str]:
    """The word as a whole and its parts; unspaced scripts by characters and their pairs."""
    if "'" in word:
        word = _CONTRACTION.sub("", _POSSESSIVE.sub("", word))
    if _ACRONYM.fullmatch(word):
        yield _term(re.sub("[.&]", "", word))
        return
    if word.isascii():
        yield from _compound(word, 0)
        return
    for position, piece in enumerate(_UNSPACED_RUN.split(word)):
        if position % 2:
            characters = _CHARACTER.findall(piece)
            yield from characters
            yield from map("".join, pairwise(characters))
        elif piece:
            yield from _compound(piece, 0)


def _compound(unit: str, level: int) -> Iterator[str]:
    """A unit and, when it is made of several, its parts at this and deeper levels."""
    whole = _term(unit)
    if level == len(_SEPARATORS):
        yield whole
        yield from map(_term, _humps(unit))
        return
    parts = [part for part in _SEPARATORS[level].split(unit) if part]
    if whole and (len(parts) > 1 or (parts and _term(parts[0]) != whole)):
        yield whole
    for part in parts:
        yield from _compound(part, level + 1)


def _humps(word: str) -> list[str]:
    """HTTP, Server, 2 of `HTTPServer2`; nothing of a plain word, nor of a hash or blob."""
    if len(word) > _MAX_IDENTIFIER_LENGTH or not word.isascii():
        return []
    if version := _VERSION.fullmatch(word):
        return [version[1]]
    humps: list[str] = _HUMPS.findall(word)
    return humps if 1 < len(humps) <= len(word) / 2 else []


def _term(unit: str) -> str:
    """Case folded, hyphens and underscores gone, stemmed, bounded."""
    term = _UNWRITTEN.sub("", unit).casefold()[:MAX_TERM_LENGTH]
    if not term.isalpha():
        return term
    with _stemmer_lock:
        return str(_stemmer.stemWord(term))
