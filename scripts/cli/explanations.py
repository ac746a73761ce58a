"""Why a search found what it found, as sentences."""

from __future__ import annotations

from scripts.cli.service import Json
from scripts.cli.terminal import counted, one_line


def why(explained: Json) -> str:
    """One line about a hit: where it stood on either side, its words, the parts of its score."""
    parts = explained["score"]
    summed = " + ".join(f"{parts[name]:.3f} {name}" for name in ("meaning", "words", "neighbours"))
    matched = f" ({one_line(', '.join(explained['matched']))})" if explained["matched"] else ""
    ranks = f"by meaning {_rank(explained['vector_rank'])}, by words"
    ranks += f" {_rank(explained['bm25_rank'])}{matched}"
    return f"   {ranks}: ({summed}) x {parts['recency']:.3f} recency"


def _rank(rank: int | None) -> str:
    return "unranked" if rank is None else f"#{rank}"


def looked_at(explained: Json) -> str:
    """What a search looked at and what it dropped."""
    dropped = ", ".join(f"{n:,} by {name}" for name, n in explained["dropped"].items() if n)
    return f"{counted(explained['candidates'], 'candidate')}; dropped: {dropped or 'none'}"
