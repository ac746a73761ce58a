"""How an assistant starts the stdio bridge, and how to tell that it does."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODULE_ARGS = ("-m", "mcp_server")
_SCRIPT = re.compile(r"(^|[\\/])faiss-memory-mcp(\.exe)?$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bridge:
    """A command line and its environment."""

    command: str
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of_this_installation(cls, env: dict[str, str]) -> Bridge:
        """The bridge that belongs to the running interpreter.

        Args:
            env: values the assistant sets for it, e.g. `FAISS_URL`.
        """
        suffix = ".exe" if sys.platform == "win32" else ""
        script = Path(sys.executable).parent / f"faiss-memory-mcp{suffix}"
        if script.exists():
            return cls(command=str(script), env=tuple(env.items()))
        return cls(command=sys.executable, args=MODULE_ARGS, env=tuple(env.items()))

    @classmethod
    def of_any_machine(cls, namespace: str = "") -> Bridge:
        """For a file that a team shares: found on the PATH, its settings from each one's own.

        Args:
            namespace: the project's own, for whoever has set no other.
        """
        return cls(
            command="faiss-memory-mcp",
            env=(
                ("FAISS_URL", "${FAISS_URL:-http://localhost:8900}"),
                ("FAISS_API_KEY", "${FAISS_API_KEY:-}"),
                ("FAISS_NAMESPACE", f"${{FAISS_NAMESPACE:-{namespace}}}"),
            ),
        )

    def over(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """An assistant's entry that starts this bridge and keeps what its owner added."""
        kept = entry.get("env")
        env = {**(kept if isinstance(kept, dict) else {}), **dict(self.env)}
        return {**entry, "command": self.command, "args": list(self.args), "env": env}


def starts_bridge(entry: object) -> bool:
    """Whether an assistant's entry starts a bridge of ours, whatever it is called there."""
    if not isinstance(entry, dict):
        return False
    args = entry.get("args") or []
    words = [entry.get("command"), *(args if isinstance(args, list) else [])]
    by_script = any(isinstance(word, str) and _SCRIPT.search(word) for word in words)
    return by_script or tuple(words[1:3]) == MODULE_ARGS
