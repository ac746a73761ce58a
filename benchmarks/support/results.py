"""Where a benchmark's JSON goes: to standard output, and into a file that git ignores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console

RESULTS_DIR = Path(__file__).parent.parent / "results"


def write_result(name: str, result: dict[str, Any], results_dir: Path = RESULTS_DIR) -> None:
    """Print a result, keep it as `<name>.json`, and say where."""
    text = json.dumps(result, indent=2)
    print(text)
    results_dir.mkdir(parents=True, exist_ok=True)
    file = results_dir / f"{name}.json"
    file.write_text(text + "\n", encoding="utf-8")
    Console(stderr=True, soft_wrap=True, highlight=False).print(f"Written to {file}")
