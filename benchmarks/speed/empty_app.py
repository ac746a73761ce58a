"""An application that does nothing: what Serve itself weighs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from ray import serve
from ray.serve import Application


class Nothing:
    """Answers every request with an empty object."""

    async def __call__(self, request: object) -> dict[str, str]:
        """Answer."""
        return {}


def build_app(args: Mapping[str, Any]) -> Application:
    """One deployment with nothing in it."""
    return serve.deployment(Nothing, name="Nothing").bind()


def write_config(file: Path) -> Path:
    """A Serve configuration of this application alone; returns its path."""
    content = {
        "proxy_location": "HeadOnly",
        "http_options": {"host": "127.0.0.1", "port": 8900},
        "applications": [
            {"name": "default", "import_path": "benchmarks.speed.empty_app:build_app"}
        ],
    }
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return file
