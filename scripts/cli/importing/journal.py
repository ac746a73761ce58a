"""What an import has got through, on disk, so that the same command continues where it stopped.

One file per command line, gone once the import is complete. It holds digests and counts, no text.
A part that was sent but not noted is sent again under the same idempotency key.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from scripts.cli.errors import CliError


@dataclass(slots=True, kw_only=True)
class Tally:
    """What became of the memories of an import, or of a part of it."""

    lines: int = 0
    added: int = 0
    duplicates: int = 0
    updated: int = 0
    unchanged: int = 0
    errors: int = 0
    removed: int = 0
    """Passages that files no longer have."""

    def add(self, other: Tally) -> None:
        """Count another part too."""
        self.lines += other.lines
        self.added += other.added
        self.duplicates += other.duplicates
        self.updated += other.updated
        self.unchanged += other.unchanged
        self.errors += other.errors
        self.removed += other.removed


class Journal:
    """The parts that are done, in order."""

    def __init__(self, path: Path, *, deduplicate: bool) -> None:
        """Open the journal of a command, or begin it.

        Args:
            path: see `journal_path`.
            deduplicate: kept when the journal begins; the one it began with wins.

        Raises:
            CliError: the same import is running, or the journal cannot be kept.
        """
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self._file: IO[str] = os.fdopen(fd, "a+", encoding="utf-8", errors="replace")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CliError("The same import is running already; wait for it, or end it.") from None
        except OSError as exc:
            raise CliError(
                f"{path} cannot be written ({exc.strerror}), so that an interrupted import could "
                "not be continued. Set XDG_STATE_HOME to a directory that can, or use --no-resume."
            ) from exc
        self._file.seek(0)
        content = self._file.read()
        entries = _entries(content)
        if content and not content.endswith("\n"):
            self._file.write("\n")
        try:
            head = entries[0] if entries else {"run": uuid.uuid4().hex, "deduplicate": deduplicate}
            self._run, self.deduplicate = str(head["run"]), bool(head["deduplicate"])
            self._done = {
                (entry["part"], entry["digest"]): Tally(**entry["tally"]) for entry in entries[1:]
            }
            self.n_before = sum(tally.lines for tally in self._done.values())
            """Memories that an earlier run of this command got through."""
        except (KeyError, TypeError) as exc:
            self._file.close()
            raise CliError(f"{path} is not as it was written; delete it to begin anew.") from exc
        self.has_parts = bool(self._done)
        """Whether any part is done."""
        if not entries:
            self._append({"run": self._run, "deduplicate": deduplicate})

    def key(self, number: int) -> str:
        """The idempotency key of a part.

        Not of its content: when a file changed meanwhile, the lines of the part that were applied
        already are still told from the new ones.
        """
        return f"import-{self._run}-{number}"

    def outcome(self, number: int, content: bytes) -> Tally | None:
        """What became of a part; None when it is not done."""
        return self._done.get((number, _digest(content)))

    def note(self, number: int, content: bytes, tally: Tally) -> None:
        """Remember that a part is done."""
        self.has_parts = True
        self._append({"part": number, "digest": _digest(content), "tally": asdict(tally)})

    def close(self, *, complete: bool) -> None:
        """Let go; a complete import leaves nothing behind."""
        if complete:
            self._path.unlink(missing_ok=True)
        self._file.close()

    def _append(self, entry: object) -> None:
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()


def journal_path(identity: object) -> Path:
    """Where the journal of a command is kept; `identity` is what makes it the same command."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:24]
    return Path(state) / "faiss-memory" / "imports" / f"{digest}.jsonl"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _entries(content: str) -> list[Any]:
    """Every whole line; one that was cut off by a crash does not count."""
    entries = []
    for line in content.splitlines():
        try:
            entries.append(json.loads(line))
        except (ValueError, RecursionError):
            continue
    return entries
