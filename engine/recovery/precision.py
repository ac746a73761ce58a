"""Which precision of the model a data directory is served, checked and embedded anew with."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from engine.legacy.directory import find_legacy
from engine.legacy.takeover import LEGACY_PRECISION
from engine.model.files import Precision
from engine.model.precision import choose_precision
from engine.store.database import DATABASE_NAME, recorded_precision


def precision_of(data_dir: Path, wanted: Literal["auto", "fp32", "int8"]) -> Precision:
    """An explicit precision as it is; `auto` stays with fp32 vectors that are there already.

    The two are never mixed. Where there are no vectors, or such of int8, `auto` is what suits
    this processor.
    """
    if wanted == "auto":
        recorded = recorded_precision(data_dir / DATABASE_NAME)
        if recorded == LEGACY_PRECISION or find_legacy(data_dir):
            return LEGACY_PRECISION
    return choose_precision(wanted)
