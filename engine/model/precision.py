"""Which precision of the model to run on this processor.

int8 is the default where the processor multiplies 8-bit integers without saturating, because
there `benchmarks/relevance/embedding_quality.py` shows it twice as fast and within
`MAX_NDCG_LOSS` of fp32 on every collection. Elsewhere pairs of products can overflow 16 bits and
embeddings silently lose quality, so fp32 it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from engine.model.files import Precision

MAX_NDCG_LOSS = 0.005
"""nDCG@10 that int8 may lose on any collection and still be the default."""

_CPUINFO = Path("/proc/cpuinfo")
_INT8_FLAGS = frozenset({"avx512_vnni", "avx_vnni", "asimddp"})
"""x86 VNNI (`vpdpbusd` adds into 32 bits) and the ARM dot product, as Linux names them."""


def choose_precision(wanted: Literal["auto", "fp32", "int8"]) -> Precision:
    """An explicit precision as it is; `auto` is what suits this processor."""
    return default_precision(read_cpuinfo()) if wanted == "auto" else wanted


def default_precision(cpuinfo: str) -> Precision:
    """int8 if every core has an 8-bit dot product, else fp32.

    Args:
        cpuinfo: the text of Linux's `/proc/cpuinfo`; empty elsewhere, which means fp32.
    """
    cores = [
        set(value.split())
        for key, _, value in (line.partition(":") for line in cpuinfo.splitlines())
        if key.strip().lower() in ("flags", "features")
    ]
    return "int8" if cores and all(core & _INT8_FLAGS for core in cores) else "fp32"


def read_cpuinfo() -> str:
    """The text of `/proc/cpuinfo`; empty where there is none."""
    try:
        return _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
