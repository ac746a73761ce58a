"""Whether two texts say the same: decided by their words, in every language, without a model.

Two strengths. `wording` is what is left of a text without its case, spacing, punctuation and
Unicode form: texts of equal wording say the same. `gist` also leaves out the article `the` and
the plural of a measure after its number, and has contractions in full: texts of equal gist say the
same if their vectors agree.
Everything else counts, so that in doubt two texts differ:

- numbers with their points, signs and units, dates, names, negations, every other function word,
  tense, accents, order;
- the case of identifiers (`userID`, `src/App.py`, `AB12`, the US), and of units (mW, MW);
- signs: `+ < % # € 👍`, brackets, hyphens, the dash of -5, `.NET`, C++, a question mark that word
  order does not imply, the indentation of a block;
- every character of code, and where a password is spoken of, but spacing.

Time is linear in the text.
"""

from __future__ import annotations

import functools
import hashlib
import re
import unicodedata
from collections.abc import Iterator
from itertools import pairwise
from typing import Final, NamedTuple

_MAX_CACHED_LENGTH: Final = 40
_MAX_CACHED: Final = 1 << 16

# Unicode form

_SAME_CHARACTER: Final = frozenset(
    re.findall(r"\S+", "<compat> <wide> <narrow> <noBreak> <initial> <medial> <final> <isolated>")
)
"""Kinds of compatibility mapping that change nothing; x² is not x2, nor ½ or ① what it maps to."""
_UNIFIED: Final = {
    **dict.fromkeys(map(ord, "‘’‛"), "'"),
    **dict.fromkeys(map(ord, "“”„‟"), '"'),
    **dict.fromkeys(map(ord, "‐‑‒–−"), "-"),
    ord("―"): "—",
    # Soft hyphen, zero-width space, word joiner, byte-order mark, variation selectors.
    **dict.fromkeys(map(ord, "\u00ad\u200b\u2060\ufeff\ufe0e\ufe0f"), ""),
    ord("″"): "″",  # not two of ′
}
# Sorting a run of marks takes `unicodedata.normalize` quadratic time.
_LONG_MARK_RUN: Final = re.compile(
    r"[^\w\s!-~\u2000-\u2bff\u3000-\u303f\ufe00-\ufe0f\U0001f000-\U0001faff]{31}"
)
_HAN_OR_KANA: Final = (
    "\u3005\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_UNSPACED_BORDER: Final = re.compile(
    rf"(?<=[{_HAN_OR_KANA}])(?=[{_HAN_OR_KANA}\w])|(?<=\w)(?=[{_HAN_OR_KANA}])"
)
_EMOJI: Final = "\u2190-\u21ff\u2300-\u2bff\U0001f000-\U0001faff"
_EMOJI_RUN: Final = re.compile(rf"([{_EMOJI}][{_EMOJI}\u200d\u20e3\U000e0020-\U000e007f]*)")

# Punctuation that a line or a text alone can judge

_DIGIT_AND_QUOTE: Final = re.compile(r"\d[\"']")
_QUOTE: Final = re.compile(r"(?<!\S)[(]*([\"'])|(?<=\d)([\"'])(?![^\W\d_])|([\"'])(?=\W|$)")
_BULLET: Final = re.compile(r"(?m)^[-*•·] (?!\W?\d)")
# Not the dash of Monday - Friday.
# Nor that of an option: `git push --force`, `rm -- file`.
_PAUSE: Final = re.compile(
    r"(?<=[^\W\d_])(?: —+ | —+|—+ |—+|(?<=[^\W\d_])--+(?=[^\s]))(?=[\"'(]*[^\W\d_])"
)
_BRACKET: Final = re.compile(
    r"(?<![^\s\"'(])\((?=[\w\"'(.+#@$€£-])|(?<=[\w\"').,!?%…])\)[\"'.,:;!?…]*"
)
_LATE_EXCLAMATION: Final = re.compile(r"(?m) !+$")
_CODE: Final = re.compile(r"[={}\\]|\w\(|::|->|`[^`\n]+`|(?i:\bpass(?:word|phrase|code)s?\b)")
"""Texts of which every character counts: code, and secrets in plain words."""
_GREEK_QUESTION_MARK: Final = re.compile(r"(?<=[\u0370-\u03ff\u1f00-\u1fff]);")

# What a chunk between spaces consists of

_OPENING: Final = "\"'«‹¿¡「『《【〈"
_CLOSING: Final = "\"'.,:;!?»›。、・」』》】〉।॥។።"
_SAYS_NOTHING: Final = re.compile(r"[.,:;。、・।॥។።]+|[\"']+|[?]+")
_ENDS_SENTENCE: Final = re.compile(r"[.!?。।॥។።]")
_LETTER: Final = r"[^\d\s!-/:-@\[-`{-~]"
_PLAIN: Final = re.compile(rf"{_LETTER}+(?:[-',;!\"。、]{_LETTER}+)*")
_BETWEEN_WORDS: Final = re.compile(r"[,;!\"。、]")
_NUMBER_AND_UNIT: Final = re.compile(r"([^\w\s]{0,3}\d[\d.,:/-]*)([°%µμ]?[^\W\d_]*)")
_ABBREVIATION: Final = re.compile(r"[^\W\d_](?:\.[^\W\d_])+")

_CONTRACTION: Final = re.compile(r"(.+)'(re|ll|ve|m)")
_FULL_FORMS: Final = {"re": "are", "ll": "will", "ve": "have", "m": "am"}
"""Not of n't: a negation stays as it is. 's and 'd stand for several words."""
_CAPITALS_IN_FRONT: Final = re.compile("[A-Z]{2,}[a-z]{2,}")
_ACRONYM: Final = re.compile(r"\b(?:US|IT|WHO)\b")
"""Those that are other words in small letters, unless all of a text is in capitals."""
_CASED_UNITS: Final = frozenset(
    re.findall(
        r"\S+", "b kb mb gb tb kbps mbps gbps mw mv ma mhz mpa mj mg mm ml m g k s h t n c f"
    )
)
"""Units that are others in other letters."""
_SUFFIXES_OF_ANY_CASE: Final = frozenset(re.findall(r"\S+", "am pm st nd rd th"))
_MEASURES: Final = frozenset(
    re.findall(
        r"\S+",
        "second minute hour day night week month year mile meter metre kilometer kilometre gram "
        "kilogram liter litre dollar euro pound cent point star",
    )
)

_AUXILIARY: Final = (
    "(?:is|are|was|were|do|does|did|can|could|will|would|shall|should|may|might|must|has|have|had)"
)
_ASKS_BY_ORDER: Final = re.compile(
    rf"\b{_AUXILIARY} (?:not )?(?:i|you|he|she|it|we|they|there)\b"
    r"|^(?:is|are|was|were|does|did|can|could|would|should|has) "
    rf"|^(?:who|whom|where|when|why|how|what) {_AUXILIARY}\b"
)


def says_the_same(a: str, b: str, *, are_similar: bool) -> bool:
    """Whether one of two texts can be left out.

    Args:
        a: a text.
        b: another.
        are_similar: whether the cosine of their vectors is that of near duplicates.
    """
    return same_words(a, b) or (are_similar and same_but_for_function_words(a, b))


def same_words(a: str, b: str) -> bool:
    """Whether texts are equal but for case, spacing, punctuation and Unicode form."""
    return a == b or (wording(a) == wording(b) and _same_sharp_s(a, b))


def same_but_for_function_words(a: str, b: str) -> bool:
    """Whether texts differ at most in articles that one of them has more and in inflection."""
    if gist(a) != gist(b) or not _same_sharp_s(a, b):
        return False
    of_a, of_b = _places_of_articles(a), _places_of_articles(b)
    return of_a <= of_b or of_b <= of_a


@functools.lru_cache(maxsize=8)  # a text is looked for, then stored
def gist_digest(text: str) -> bytes:
    """8 bytes, equal for texts that say the same."""
    return hashlib.blake2b(gist(text).encode(), digest_size=8, person=b"gist").digest()


def wording(text: str) -> str:
    """What a text says, equal for texts that differ in case, spacing and the like."""
    return " ".join(_words(text)) or text.strip()


def gist(text: str) -> str:
    """Its wording without what may be missing or inflected."""
    return " ".join(_bare(_in_full(_words(text)))) or text.strip()


def _places_of_articles(text: str) -> set[int]:
    """How many other words are before each `the`: one that is elsewhere is another order."""
    articles = [at for at, word in enumerate(_in_full(_words(text))) if word == "the"]
    return {at - nth for nth, at in enumerate(articles)}


def _same_sharp_s(a: str, b: str) -> bool:
    """Whether ß is ss in capitals alone: Maße are not Masse, but STRASSE is Straße."""
    return a.count("ß") == b.count("ß") or a.isupper() or b.isupper()


def _bare(words: list[str]) -> Iterator[str]:
    """Words without articles, and without the plural of what a number counts."""
    before = ""
    for at, word in enumerate(words, start=1):
        if word != "the" or at == len(words):
            is_plural = word[-1] == "s" and word[:-1] in _MEASURES and before[-1:].isdigit()
            yield word[:-1] if is_plural else word
        before = word


def _in_full(words: list[str]) -> list[str]:
    """Words with contractions in full."""
    full = []
    for word in words:
        if "'" in word and (contraction := _CONTRACTION.fullmatch(word)):
            full += [contraction[1], _FULL_FORMS[contraction[2]]]
        else:
            full.append(word)
    return full


def _words(text: str) -> list[str]:
    formed = _formed(text)
    if text.isupper():
        formed = _ACRONYM.sub(lambda match: match[0].lower(), formed)
    if _CODE.search(formed):
        return _with_indentation(formed).split()
    words: list[str] = []
    sentence = 0
    for chunk in _judged(formed).split():
        piece = _pieces[chunk]
        if piece.unit and words and words[-1][-1:].isdigit():
            words.append(piece.unit)
        else:
            words += piece.words
        if piece.asks and not _ASKS_BY_ORDER.search(" ".join(words[sentence:])):
            words.append("?")
        if piece.ends_sentence:
            sentence = len(words)
    return words


def _formed(text: str) -> str:
    """The text in one Unicode form; emoji, Han and kana stand apart from each other."""
    if text.isascii() or _LONG_MARK_RUN.search(text):
        return text
    formed = unicodedata.normalize("NFC", text.translate(_forms))
    return _EMOJI_RUN.sub(r" \1 ", _UNSPACED_BORDER.sub(" ", formed))


def _judged(text: str) -> str:
    """The text with single spaces, its punctuation rid of what only its place tells apart."""
    text = _with_indentation(text)
    text = "\n".join([" ".join(line.split()) for line in text.splitlines()])
    text = _LATE_EXCLAMATION.sub("", _PAUSE.sub(" ", _BULLET.sub("", text)))
    if "(" in text or ")" in text:
        text = _BRACKET.sub(r" \g<0> ", text)
    if _DIGIT_AND_QUOTE.search(text):
        text = _with_primes(text)
    return text if text.isascii() else _GREEK_QUESTION_MARK.sub("?", text)


def _with_primes(text: str) -> str:
    """The feet and inches of 5'10" as primes; a quotation that ends in a number is none."""
    is_open = {"'": False, '"': False}

    def judged(match: re.Match[str]) -> str:
        opening, after_digit, closing = match.groups()
        if opening:
            is_open[opening] = True
        elif after_digit and not is_open[after_digit]:
            return "′" if after_digit == "'" else "″"
        else:
            is_open[after_digit or closing] = False
        return match[0]

    return _QUOTE.sub(judged, text)


def _with_indentation(text: str) -> str:
    """The text, each line's level before it if a line that ends in a colon opens a block."""
    if ":" not in text or "\n" not in text:
        return text
    lines = [line.expandtabs().rstrip() for line in text.splitlines() if not line.isspace()]
    depths = [len(line) - len(line.lstrip()) for line in lines]
    if not any(
        line.endswith(":") and depth < deeper
        for line, (depth, deeper) in zip(lines, pairwise(depths), strict=False)
    ):
        return text
    levels = [0]
    for at, depth in enumerate(depths):
        while depth < levels[-1]:
            levels.pop()
        if depth > levels[-1]:
            levels.append(depth)
        lines[at] = f"↳{len(levels)}\n{lines[at]}"
    return "\n".join(lines)


class _Forms(dict[int, str]):
    """Each character in the form that stands for all of its forms, by code point."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        kind = unicodedata.decomposition(character).partition(" ")[0]
        form = character
        if kind in _SAME_CHARACTER and not character.isspace():
            form = unicodedata.normalize("NFKC", character)
        if len(self) >= _MAX_CACHED:
            self.clear()
            self.update(_UNIFIED)
        self[code] = form
        return form


_forms: Final = _Forms(_UNIFIED)


class _Piece(NamedTuple):
    """What stands between two spaces."""

    words: tuple[str, ...]
    unit: str = ""
    """As it is written, if it is a unit after a number."""
    ends_sentence: bool = False
    asks: bool = False


class _Pieces(dict[str, _Piece]):
    """The pieces already seen: text repeats its words."""

    def __missing__(self, chunk: str) -> _Piece:
        piece = _piece_of(chunk)
        if len(chunk) <= _MAX_CACHED_LENGTH:
            if len(self) >= _MAX_CACHED:
                self.clear()
            self[chunk] = piece
        return piece


_pieces: Final = _Pieces()


def _piece_of(chunk: str) -> _Piece:
    core = chunk.lstrip(_OPENING)
    opening, core = chunk[: len(chunk) - len(core)], core.rstrip(_CLOSING)
    tail = chunk[len(opening) + len(core) :] if core else chunk
    if not core and chunk and not _SAYS_NOTHING.fullmatch(chunk):
        return _Piece((chunk,))
    return _Piece(
        tuple(_words_of_core(core)),
        unit=core if core.casefold() in _CASED_UNITS else "",
        ends_sentence=_ENDS_SENTENCE.search(tail) is not None,
        asks="?" in tail,
    )


def _words_of_core(core: str) -> Iterator[str]:
    if _PLAIN.fullmatch(core):
        for word in filter(None, _BETWEEN_WORDS.split(core)):
            yield from _words_of_plain(word)
    elif found := _NUMBER_AND_UNIT.fullmatch(core):
        number, unit = found.groups()
        yield number
        if unit:
            yield unit.casefold() if unit.casefold() in _SUFFIXES_OF_ANY_CASE else unit
    elif _ABBREVIATION.fullmatch(core):
        yield core.casefold()
    elif core:
        yield core


def _words_of_plain(word: str) -> Iterator[str]:
    is_identifier = _CAPITALS_IN_FRONT.match(word) is not None or any(
        a.islower() and b.isupper() for a, b in pairwise(word)
    )
    if is_identifier or _ACRONYM.fullmatch(word):
        yield word
        return
    folded = word.casefold()
    if folded == "cannot":
        yield from ("can", "not")
        return
    yield folded
