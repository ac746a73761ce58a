"""What is skipped as said already, and what is not, as JSON.

Pairs are made from real texts: 2,000 that differ in one thing, of which none may be lost, and 500
that differ in nothing, of which all must be skipped. Then the first 20,000 distinct turns of
dialogues are added to an empty index: what is still skipped, what differs in it, and examples for
a person to judge. The embeddings are the product's own.
"""

from __future__ import annotations

import random
import re
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.support.corpora import (
    DEFAULT_DATA_DIR,
    DIALOGUES,
    GLOSSES,
    distinct_turns,
    shuffled_glosses,
)
from benchmarks.support.filled_store import embed_cached, open_index, service_embedder
from benchmarks.support.results import write_result
from engine.memory_index import MemoryIndex
from engine.model.embedder import Embedder
from engine.records import NewMemory
from engine.words.sameness import says_the_same

Change = Callable[[str, random.Random], str | None]
"""A text that differs in one thing; None where this one has no such thing."""

_N_DIFFERENT = 2_000
_N_SAME = 500
_N_TURNS = 20_000
_EXAMPLES = 25
_LINES_OF_A_WRITE = 256

_WORD = re.compile(r"[A-Za-z]+")
_NUMBER = re.compile(r"\d+")
_NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]{2,}")
_NEGATION = re.compile(
    r"\b(not|no|never|none|nothing|nobody|without|cannot|\w+n't)\b", re.IGNORECASE
)
_OF_IDENTIFIERS = re.compile(r"[a-z][A-Z]|\d|[A-Z]{2}|\w\.\w|[`=_@#/]")
_OPPOSITES = (
    ("before", "after"),
    ("in", "out"),
    ("on", "off"),
    ("up", "down"),
    ("to", "from"),
    ("all", "none"),
    ("more", "less"),
    ("with", "without"),
    ("always", "never"),
    ("he", "she"),
    ("is", "was"),
    ("can", "must"),
    ("good", "bad"),
    ("first", "last"),
    ("large", "small"),
)
_OPPOSITE = {a: b for pair in _OPPOSITES for a, b in (pair, pair[::-1])}
_NAMES = ("Oslo", "Lagos", "Quito", "Perth", "Anna", "Bruno", "Chen", "Divya")
_UNITS = (("km", "mi"), ("kg", "lb"), ("%", ""), ("MB", "GB"), ("mW", "MW"), ("days", "weeks"))
_SIGNS = (("+5", "-5"), ("-3", "3"), ("<7", ">7"), ("C", "C++"), ("C++", "C#"), ("€9", "$9"))
_EMOJI = (("👍", "👎"), ("👍", "👍🏽"), ("🟢", "🔴"), ("🙂", "🙁"))
_MONTHS = "January February March April May June July August October November".split()  # noqa: SIM905
_SCRIPTS = (
    ("ฉันชอบแมว", "ฉันชอบหมา"),
    ("我喜欢猫", "我喜欢狗"),
    ("猫が好き", "猫が嫌い"),
    ("고양이가 좋다", "고양이가 싫다"),
    ("ខ្ញុំចូលចិត្តឆ្មា", "ខ្ញុំចូលចិត្តឆ្កែ"),
    ("ድመት እወዳለሁ", "ውሻ እወዳለሁ"),
    ("பூனை பிடிக்கும்", "நாய் பிடிக்கும்"),
    ("أحب القطط", "أحب الكلاب"),
)


def _replaced(text: str, match: re.Match[str], new: str) -> str:
    return text[: match.start()] + new + text[match.end() :]


def _one_of(pattern: re.Pattern[str], text: str, rng: random.Random) -> re.Match[str] | None:
    matches = list(pattern.finditer(text))
    return rng.choice(matches) if matches else None


def _number(text: str, rng: random.Random) -> str | None:
    match = _one_of(_NUMBER, text, rng)
    return _replaced(text, match, str(int(match[0]) + rng.randint(1, 9))) if match else None


def _name(text: str, rng: random.Random) -> str | None:
    match = _one_of(_NAME, text, rng)
    return _replaced(text, match, rng.choice(_NAMES)) if match else None


def _opposite(text: str, rng: random.Random) -> str | None:
    matches = [m for m in _WORD.finditer(text) if m[0] in _OPPOSITE]
    if not matches:
        return None
    match = rng.choice(matches)
    return _replaced(text, match, _OPPOSITE[match[0]])


def _negated(text: str, rng: random.Random) -> str | None:
    match = _one_of(re.compile(r"\b(?:is|are|was|can|will|would|has|do)\b"), text, rng)
    return _replaced(text, match, f"{match[0]} not") if match else None


def _reordered(text: str, rng: random.Random) -> str | None:
    words = list(_WORD.finditer(text))
    if len({word[0].casefold() for word in words}) < 3:
        return None
    a, b = sorted(rng.sample(words, 2), key=lambda word: word.start())
    if a[0].casefold() == b[0].casefold():
        return None
    return text[: a.start()] + b[0] + text[a.end() : b.start()] + a[0] + text[b.end() :]


def _with_ending(pairs: Sequence[tuple[str, str]]) -> Callable[[str, random.Random], list[str]]:
    """Both texts of a pair: the same one, and a phrase that differs at its end."""

    def end(text: str, rng: random.Random) -> list[str]:
        stem = text.rstrip(".!? ")
        return [f"{stem}: {phrase}".strip() for phrase in rng.choice(pairs)]

    return end


def _identifiers(rng: random.Random) -> tuple[str, str]:
    code = f"{rng.choice('ABKX')}{rng.choice('RSTZ')}-{rng.randint(100, 9_999)}"
    return rng.choice(
        [
            (code, code[:-1] + str((int(code[-1]) + 1) % 10)),
            ("userID", "userid"),
            ("src/App.py", "src/app.py"),
            ("max_size", "min_size"),
            ("v2.3.1", "v2.31"),
            (code, code.lower()),
        ]
    )


def _different(texts: Sequence[str], n: int) -> Iterator[tuple[str, str, str]]:
    """Kind and texts of pairs that differ in one thing; as many of each kind."""
    changes: dict[str, Change] = {
        "number": _number,
        "name": _name,
        "opposite": _opposite,
        "negation": _negated,
        "order": _reordered,
    }
    rng = random.Random(14)
    dates = [(f"on {m} {d}th", f"on {m} {d + 1}th") for m in _MONTHS for d in range(4, 20)]
    units = [(f"{n} {a}", f"{n} {b}") for a, b in _UNITS for n in (2, 5, 40)]
    endings = {
        "date": _with_ending(dates),
        "unit": _with_ending(units),
        "sign": _with_ending([*_SIGNS, *_EMOJI]),
        "script": _with_ending(_SCRIPTS),
    }
    kinds = [*changes, *endings, "identifier"]
    waiting = iter(texts)
    for at in range(n):
        kind = kinds[at % len(kinds)]
        for text in waiting:
            if kind in changes:
                changed = changes[kind](text, rng)
                if changed is None or changed == text:
                    continue
                yield kind, text, changed
            else:
                pairs = endings.get(kind) or _with_ending([_identifiers(rng)])
                a, b = pairs(text, rng)
                yield kind, a, b
            break


def _same(texts: Sequence[str], n: int) -> Iterator[tuple[str, str, str]]:
    """Kind and texts of pairs that differ in nothing."""
    # Of texts in plain words: the case of identifiers, and of units after a number, counts.
    plain = [text for text in texts if not _OF_IDENTIFIERS.search(text)]
    rng = random.Random(15)
    changes: dict[str, Callable[[str], str]] = {
        "upper case": str.upper,
        "lower case": str.lower,
        "title case": lambda text: re.sub(r"\b[a-z](?![’'])", lambda m: m[0].upper(), text),
        "spacing": lambda text: re.sub(" ", lambda _: rng.choice([" ", "  ", "\n"]), f" {text} "),
        "full stop": lambda text: text.rstrip(".") if text.endswith(".") else f"{text}.",
        "exclamation mark": lambda text: text.rstrip(".") + "!",
        "no commas": lambda text: text.replace(",", ""),
        "quotation marks": lambda text: f"“{text}”",
        "typographic apostrophes": lambda text: text.replace("'", "’"),
        "decomposed": lambda text: unicodedata.normalize("NFD", text.replace("e", "é")),
        "full width": lambda text: "".join(
            chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text
        ),
    }
    for at, text in enumerate(plain[:n]):
        kind = list(changes)[at % len(changes)]
        original = text.replace("e", "é") if kind == "decomposed" else text
        yield kind, original, changes[kind](original)


def _judge_pairs(
    pairs: Sequence[tuple[str, str, str]], embedder: Embedder, *, may_be_skipped: bool
) -> dict[str, Any]:
    """How many of each kind are skipped where the vectors say that they may be."""
    vectors = embedder.embed([text for _, *texts in pairs for text in texts])
    wrong: Counter[str] = Counter()
    near: Counter[str] = Counter()
    examples = []
    for at, (kind, a, b) in enumerate(pairs):
        is_similar = float(vectors[2 * at] @ vectors[2 * at + 1]) >= 0.9
        near[kind] += is_similar
        if says_the_same(a, b, are_similar=is_similar) != may_be_skipped:
            wrong[kind] += 1
            examples.append({"kind": kind, "a": a, "b": b})
    return {
        "pairs": len(pairs),
        "by_kind": dict(Counter(kind for kind, *_ in pairs)),
        "cosine_of_0.9_and_above": sum(near.values()),
        "lost" if not may_be_skipped else "not_skipped": sum(wrong.values()),
        "examples": examples[:_EXAMPLES],
    }


def _skipped(index: MemoryIndex, texts: Sequence[str], embedder: Embedder) -> dict[str, Any]:
    """What an index skips of distinct texts, by what differs."""
    vectors = embed_cached(embedder, texts)
    kinds: Counter[str] = Counter()
    examples: dict[str, list[dict[str, str]]] = {}
    n_similar = 0
    for start in range(0, len(texts), _LINES_OF_A_WRITE):
        part = texts[start : start + _LINES_OF_A_WRITE]
        memories = [NewMemory(text=text, source="turns") for text in part]
        rows = vectors[start : start + _LINES_OF_A_WRITE]
        outcomes = index.add(memories, rows, request_id=f"turns {start}").result()
        for text, outcome in zip(part, outcomes, strict=True):
            n_similar += bool(outcome.similar)
            if outcome.duplicate_text is not None:
                kind = _difference(outcome.duplicate_text, text)
                kinds[kind] += 1
                examples.setdefault(kind, []).append(
                    {"stored": outcome.duplicate_text, "skipped": text}
                )
    rng = random.Random(16)
    return {
        "turns": len(texts),
        "skipped": sum(kinds.values()),
        "by_difference": dict(kinds.most_common()),
        "added_though_much_like_another": n_similar,
        "examples": {
            kind: rng.sample(found, min(len(found), _EXAMPLES)) for kind, found in examples.items()
        },
    }


def _difference(a: str, b: str) -> str:
    """The gravest thing in which two texts differ."""
    for kind, pattern in (("a digit", _NUMBER), ("a negation", _NEGATION)):
        if sorted(map(str.casefold, pattern.findall(a))) != sorted(
            map(str.casefold, pattern.findall(b))
        ):
            return kind
    names = [{n.casefold() for n in _NAME.findall(text)} for text in (a, b)]
    folded = [a.casefold(), b.casefold()]
    if any(name not in folded[0] or name not in folded[1] for name in names[0] | names[1]):
        return "a capitalised word"
    words = [[w.casefold() for w in _WORD.findall(text)] for text in (a, b)]
    if words[0] != words[1]:
        return "a word or an ending"
    if a.casefold() == b.casefold():
        return "case alone"
    return "punctuation or spacing"


def measure(data_dir: Path, embedder: Embedder) -> dict[str, Any]:
    """Judge the pairs, then add the turns."""
    turns = distinct_turns(data_dir)
    glosses = [passage.text for passage in shuffled_glosses(data_dir)]
    texts = [text for pair in zip(turns, glosses, strict=False) for text in pair]
    random.Random(13).shuffle(texts)
    different = list(_different(texts, _N_DIFFERENT))
    same = list(_same(texts, _N_SAME))
    with tempfile.TemporaryDirectory() as directory:
        index = open_index(Path(directory) / "data", embedder, with_backups=False)
        try:
            skipped = _skipped(index, turns[:_N_TURNS], embedder)
        finally:
            index.close()
    return {
        "differ_in_one_thing": _judge_pairs(different, embedder, may_be_skipped=False),
        "differ_in_nothing": _judge_pairs(same, embedder, may_be_skipped=True),
        "distinct_turns": skipped,
    }


def main(
    data_dir: Annotated[Path, typer.Option(help="The collections.")] = DEFAULT_DATA_DIR,
    model_dir: Annotated[Path | None, typer.Option(help="The model's directory.")] = None,
) -> None:
    """Measure what counts as the same."""
    absent = [name for name in (DIALOGUES, GLOSSES) if not (data_dir / name).is_dir()]
    if absent:
        missing = f"No {', '.join(absent)} in {data_dir}: name their directory by --data-dir"
        Console(stderr=True).print(missing)
        raise typer.Exit(2)
    write_result("sameness", measure(data_dir, service_embedder(model_dir)))


if __name__ == "__main__":
    typer.run(main)
