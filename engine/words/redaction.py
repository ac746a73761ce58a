"""Secrets in a text, replaced by their kind: `[redacted:github]`.

Known tokens go by their form (`engine.words.secret_kinds`); whatever else is assigned to a name
like `password` or `api_key` goes where it looks drawn at random. Hashes, ids, paths, pictures in
base64, placeholders and calls stay.
"""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from engine.words.secret_kinds import KINDS

_PASSWORD_NAME: Final = r"pass(?:word|wd|phrase|code)?|pwd"
_SECRET_NAME: Final = (
    r"secret|token|credential|(?:api|access|account|auth|private|client|signing|encryption|session|"
    r"shared|master|subscription|service|webhook|license)[ _.-]?key|apikey"
)
# Begins with the telling word, so that a text is searched for a handful of words alone.
_ASSIGNED: Final = re.compile(
    rf"(?i)(?P<word>(?P<password>{_PASSWORD_NAME})|{_SECRET_NAME})(?P<rest>(?:[_.-][\w.-]{{0,20}}|\d)?)"
    r"[\"'`]?(?:\s{0,3}(?:=>|:=|=|:(?!:))\s{0,3}|(?P<says>\s{1,3}(?:is|was)\s{1,3})|(?P<gap>\s{1,3}))"
    r"(?:[bru]{0,2}[\"'`])?(?P<secret>[^\s\"'`,;(){}\[\]<>\\]{6,300})(?!\()"
)
_TELLING: Final = ("pass", "pwd", "secret", "token", "credential", "key")
_NAME_BEFORE: Final = re.compile(r"[\w.-]{0,40}\Z")
_NO_SECRET_NAME: Final = re.compile(
    r"(?i)hash|digest|checksum|sha\d|md5|(?:^|[_.-])(?:ids?|name|type|url|uri|path|file|count|len|"
    r"length|limit|budget|usage|policy|field|label|ttl|expir\w*|age|pub|public)(?:$|[_.-])"
)
_PLACEHOLDER: Final = re.compile(
    r"(?i)^(?:[$%@#&*!]|\[redacted:|https?://|[./~\\]|[a-z]:\\)|"
    r"example|placeholder|changeme|change[-_]me|your[-_]|insert|dummy|redacted|secrets?\.|"
    r"process\.env|environ|getenv|vault:|(.)\1{4}"
)
_NAME_PART: Final = re.compile(r"(?:[A-Z]?[a-z]*(?:[A-Z][a-z]+)*|[A-Z]+)\d{0,4}")


@dataclass(frozen=True)
class Redacted:
    """A text without its secrets, and how many of each kind there were."""

    text: str
    counts: Mapping[str, int]


def redact(text: str) -> Redacted:
    """Replace every secret by `[redacted:kind]`. Of what it returns it finds nothing again."""
    counts: Counter[str] = Counter()

    def replaced(match: re.Match[str], kind: str) -> str:
        counts[kind] += 1
        if "secret" not in match.re.groupindex:
            return f"[redacted:{kind}]"
        start, end = (at - match.start() for at in match.span("secret"))
        return f"{match[0][:start]}[redacted:{kind}]{match[0][end:]}"

    def assigned(match: re.Match[str]) -> str:
        kind = "password" if match["password"] else "secret"
        return replaced(match, kind) if _is_secret(match, kind) else match[0]

    for kind in KINDS:
        if any(literal in text for literal in kind.literals):
            text = kind.pattern.sub(functools.partial(replaced, kind=kind.name), text)
    lower = text.lower()
    if any(word in lower for word in _TELLING):
        text = _ASSIGNED.sub(assigned, text)
    return Redacted(text, dict(sorted(counts.items())))


def _is_secret(match: re.Match[str], kind: str) -> bool:
    value, word = match["secret"].rstrip(".:!?"), match["word"]
    found = _NAME_BEFORE.search(match.string, max(0, match.start() - 40), match.start())
    before = found[0] if found else ""
    if before[-1:].isalpha() and not (before[-1].islower() and word[0].isupper()):
        return False  # compass
    if (match["gap"] and before[:1] != "-") or (match["says"] and value.isalpha()):
        return False
    if _NO_SECRET_NAME.search(before + word + match["rest"]) or _PLACEHOLDER.search(value):
        return False
    if value.isdecimal():
        return False
    if all(_NAME_PART.fullmatch(part) for part in re.split(r"[-_./:]", value)) and (
        kind != "password" or value.isalpha() or not value.isalnum()
    ):
        return False  # refresh-token-v2
    if kind == "password":
        return _bits_a_character(value) >= 2.3
    return len(value) >= 10 and _bits_a_character(value) >= 2.8


def _bits_a_character(value: str) -> float:
    """Shannon's entropy of the characters."""
    n = len(value)
    return -sum(count / n * math.log2(count / n) for count in Counter(value).values())
