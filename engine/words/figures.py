"""Numbers and dates as one term in whatever notation: `1,299.99`, 5 March 2026.

They come beside the terms of a word as it is written, never in their place. A date that could be
another day elsewhere (03/05/2026) is left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import date
from itertools import groupby
from typing import Final

# Thousands or lakhs of 1,299.99; of 1.299,99; millions of 1.299.000, unlike a decimal's 1.299.
_GROUPED: Final = re.compile(
    r"(?<![\d.,'])(?:(\d{1,3}(?:[,']\d\d\d?){0,9}[,']\d{3})(?:\.(\d{1,18}))?"
    r"|(\d{1,3}(?:[.']\d{3}){1,9}),(\d\d?)"
    r"|(\d{1,3}(?:\.\d{3}){2,9}))(?![\d,'])"
)
_MOST_GROUPS: Final = 6
_LEAST_DIGITS: Final = 7
_MOST_DIGITS: Final = 15  # ITU-T E.164
_SEPARATORS: Final = str.maketrans("", "", ".,'")

# By month: English, German, French, Spanish, Italian, Portuguese, Dutch.
_MONTH_NAMES: Final = (
    "january jan januar jänner janvier enero ene gennaio gen janeiro januari",
    "february feb februar février fevrier febrero febbraio fevereiro februari",
    "march mar märz marz mars marzo março marco maart",
    "april apr avril abril abr aprile",
    "may mai mayo maggio mag maio mei",
    "june jun juni juin junio giugno giu junho",
    "july jul juli juillet julio luglio lug julho",
    "august aug août aout agosto ago augustus",
    "september sep sept septembre septiembre settembre set setembro",
    "october oct oktober okt octobre octubre ottobre ott outubro out",
    "november nov novembre noviembre novembro",
    "december dec dezember dez décembre decembre diciembre dic dicembre dezembro",
)
_MONTHS: Final = {
    spelling: number
    for number, names in enumerate(_MONTH_NAMES, start=1)
    for name in names.split()
    for spelling in (name, name.capitalize(), name.upper())
}
_MONTH_CHUNKS: Final = frozenset(_MONTHS)
_CONNECTING: Final = frozenset({"of", "de", "del"})
_DAY: Final = re.compile(r"(\d{1,2})(?:st|nd|rd|th|er|o)?")
_YEAR: Final = re.compile(r"\d{4}")

_YEAR_FIRST: Final = re.compile(r"(?<!\d)(\d{4})(?:([-/.])(\d\d?)\2|年(\d\d?)月)(\d\d?)(?!\d)")
_YEAR_LAST: Final = re.compile(r"(?<!\d)(\d\d?)([-/.])(\d\d?|[^\W\d_]{3,10})\2(\d{4})(?!\d)")


def plain_figures(word: str) -> list[str]:
    """The grouped numbers and the dates in a word, as one would write them plainly."""
    if len(word) < 5 or word.isdecimal() or word.isalpha():
        return []
    return [*_numbers(word), *_dates(word)]


def _numbers(word: str) -> Iterator[str]:
    """`1299` and `1299.99` of `1,299.99`."""
    for whole, fraction, european, cents, millions in _GROUPED.findall(word):
        number = (whole or european or millions).translate(_SEPARATORS)
        yield number
        if fraction or cents:
            yield f"{number}.{fraction or cents}"


def _dates(word: str) -> Iterator[str]:
    """Those of `2026/03/05`, `05.03.2026`, `5-Mar-2026`, `25/12/2026`."""
    for year, _, month, kanji, day in _YEAR_FIRST.findall(word):
        yield from _date(year, int(month or kanji), day)
    for left, separator, middle, year in _YEAR_LAST.findall(word):
        if not middle.isdecimal():
            yield from _date(year, _MONTHS.get(middle, 0), left)
        elif separator == "." or left == middle or int(left) > 12:
            yield from _date(year, int(middle), left)
        elif int(middle) > 12:
            yield from _date(year, int(left), middle)


def spelled_dates(chunks: Sequence[str]) -> list[str]:
    """Dates of several chunks: `5 March 2026`, `March 5th, 2026`, `5 de marzo de 2026`."""
    if _MONTH_CHUNKS.isdisjoint(chunks):
        return []
    return [
        term
        for at, chunk in enumerate(chunks)
        if chunk in _MONTHS
        for term in _date_around(chunks, at)
    ]


def spelled_figures(chunks: Sequence[str]) -> list[str]:
    """The dates and the numbers in groups that several chunks make."""
    return spelled_dates(chunks) + spelled_numbers(chunks)


def spelled_numbers(chunks: Sequence[str]) -> list[str]:
    """The digits of a number that is written in groups, as telephone numbers are: +49 170 1234567.

    None of its groups need be rare.
    """
    numbers = []
    for is_digits, run in groupby((chunk.replace("-", "") for chunk in chunks), str.isdecimal):
        groups = list(run) if is_digits else []
        number = "".join(groups)
        if 1 < len(groups) <= _MOST_GROUPS and _LEAST_DIGITS <= len(number) <= _MOST_DIGITS:
            numbers.append(number)
    return numbers


def _date_around(chunks: Sequence[str], at: int) -> Iterator[str]:
    before, *_ = [*_without_connecting(chunks[max(at - 2, 0) : at][::-1]), ""]
    after, then, *_ = [*_without_connecting(chunks[at + 1 : at + 4]), "", ""]
    month = _MONTHS[chunks[at]]
    if (day := _DAY.fullmatch(before)) and _YEAR.fullmatch(after):
        yield from _date(after, month, day[1])
    elif day := _DAY.fullmatch(after):
        year = then if _YEAR.fullmatch(then) else before
        if _YEAR.fullmatch(year):
            yield from _date(year, month, day[1])


def _without_connecting(chunks: Sequence[str]) -> list[str]:
    return [chunk for chunk in chunks if chunk not in _CONNECTING]


def _date(year: str, month: int, day: str) -> Iterator[str]:
    """The term of a date, if there is such a day."""
    with suppress(ValueError):
        yield date(int(year), month, int(day)).isoformat().replace("-", "")
