"""Spellings of one word made one: what keyboards, encodings and accents make different.

`normalise` prepares a text so that it can be cut into words; `fold` then takes a word down to its
bare letters: accents, vowel signs and strokes gone (`Łódź` is `Lodz`), ligatures spelled out, every
script's digits those of ASCII, Arabic letters as Lucene's Arabic and Persian normalizers fold them.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import chain, groupby
from typing import Final


def _marks() -> str:
    marks = (c for c in range(0x300, 0x1F000) if unicodedata.category(chr(c)).startswith("M"))
    runs = groupby(enumerate(marks), lambda numbered: numbered[1] - numbered[0])
    ends = ([code for _, code in run] for _, run in runs)
    return "".join(f"{chr(codes[0])}-{chr(codes[-1])}" for codes in ends)


MARKS: Final = _marks()
"""Combining marks, as members of a regular expression's class: ranges, which match faster."""

EMOJI: Final = "\u2300-\u23ff\u2600-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff"
"""Emoji and pictographs, likewise."""

# Sorting a run of marks takes `unicodedata.normalize` quadratic time: 2 s for 50,000 of them.
# Stream-Safe Text (UAX #15) has at most 30 in a row.
_LONG_MARK_RUN: Final = re.compile(f"(?=[^\x00-\u02ff])([{MARKS}]{{30}})[{MARKS}]+")
# Soft hyphen, joiners, byte-order mark, variation selectors; what joins two emoji stays.
_INVISIBLE: Final = re.compile(
    f"[\u00ad\u200c\u2060\ufeff\ufe00-\ufe0f\U000e0100-\U000e01ef]|\u200d\ufe0f*(?![{EMOJI}])"
)
_NUMBER_SPACE: Final = re.compile("(?<=\\d)[\u00a0\u2009\u202f](?=\\d{3}(?!\\d))")

# Accents, Hebrew points, Arabic vowel signs and tatweel, enclosing marks.
_ACCENTS: Final = re.compile(
    "[\u0300-\u036f\u0591-\u05bd\u05bf-\u05c7\u0640\u064b-\u065f\u0670\u20d0-\u20f0]+"
)
_LIGATURES: Final = {
    "æ": "ae", "Æ": "Ae", "œ": "oe", "Œ": "Oe", "þ": "th", "Þ": "Th", "ð": "d", "Ð": "D", "ı": "i",
}  # fmt: skip
_ARABIC: Final = {"ى": "ي", "ی": "ي", "ے": "ي", "ک": "ك", "ہ": "ه", "ة": "ه", "٫": ".", "٬": ","}
_BARRED: Final = re.compile("LATIN (SMALL|CAPITAL) LETTER ([A-Z]) WITH .*")


def _barred_letters() -> dict[str, str]:
    """đ, ł, ø, ɓ and others that no decomposition takes apart; to the letter below the stroke."""
    letters = chain(range(0xC0, 0x2B0), range(0x1E00, 0x1F00), range(0x2C60, 0x2C80))
    names = {chr(c): _BARRED.fullmatch(unicodedata.name(chr(c), "")) for c in letters}
    return {
        letter: name[2] if name[1] == "CAPITAL" else name[2].lower()
        for letter, name in names.items()
        if name
    }


def _digits() -> dict[str, str]:
    """Every script's decimal digits."""
    characters = "".join(map(chr, chain(range(0x660, 0xD800), range(0x10000, 0x1FC00))))
    return {digit: str(unicodedata.decimal(digit)) for digit in re.findall(r"\d", characters)}


_LETTERS: Final = str.maketrans({**_barred_letters(), **_LIGATURES, **_ARABIC, **_digits()})


def normalise(text: str) -> str:
    """A text in NFKC, less what is invisible; spaces that group digits are apostrophes."""
    text = _NUMBER_SPACE.sub("'", text.replace("’", "'"))
    if not text.isascii():
        text = unicodedata.normalize("NFKC", _LONG_MARK_RUN.sub(r"\1", text))
        text = _INVISIBLE.sub("", text)
    return text


def fold(word: str) -> str:
    """A normalised word without accents, in plain letters and digits; case stays."""
    bare = _ACCENTS.sub("", unicodedata.normalize("NFKD", word)).translate(_LETTERS)
    bare = unicodedata.normalize("NFC", bare)
    return bare.upper() if word.isupper() else bare  # ŒUVRE has no hump
