"""Every file operation of backups, restores and caches fails once, in turn."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.errors import EngineError
from engine.memory_index import MemoryIndex
from engine.records import MemoryFilter
from tests.support.index_under_test import add, open_index, search, texts_of

OPERATIONS = ("fsync", "link", "rename", "replace", "mkdir", "unlink")
OPTIONS: dict[str, Any] = {"max_backups": 0, "deltas_share": 100.0, "merge_below_bytes": 0}


class FaultyFiles:
    """Counts the operating system's file operations and lets the n-th one fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.fail_at = 0
        self.code = errno.EIO
        for name in OPERATIONS:
            monkeypatch.setattr(os, name, self._wrap(getattr(os, name)))

    def _wrap(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            if self.count == self.fail_at:
                raise OSError(self.code, os.strerror(self.code))
            return operation(*args, **kwargs)

        return wrapped


def work(directory: Path, acknowledged: list[str], restored_to: list[list[str]]) -> None:
    index = open_index(directory, **OPTIONS)
    try:
        for n in range(2):
            add(index, f"text {n}")
            acknowledged.append(f"text {n}")
            backup = index.backup("manual")
        add(index, "text 2")
        acknowledged.append("text 2")
        restored_to.append(["text 0", "text 1"])
        index.restore(backup.name).result()
        acknowledged[:] = restored_to.pop()
        index.verify_backup(backup.name)
    finally:
        index.close()


def stored_texts(index: MemoryIndex) -> list[str]:
    page = index.list_memories(MemoryFilter(), offset=0, limit=100)
    return [memory.text for memory in page.memories]


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_no_failed_file_operation_loses_a_write_or_lists_a_broken_backup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    n, completed = 0, False
    while not completed:
        n += 1
        directory = tmp_path / str(n)
        acknowledged: list[str] = []
        in_doubt: list[list[str]] = []
        with monkeypatch.context() as patch:
            faults = FaultyFiles(patch)
            faults.fail_at, faults.code = n, code
            with contextlib.suppress(EngineError, OSError):
                work(directory, acknowledged, in_doubt)
            completed = faults.count < n
        index = open_index(directory, **OPTIONS)
        assert stored_texts(index) in [acknowledged, *in_doubt], f"operation {n}"
        if acknowledged:
            assert texts_of(search(index, "text", k=9, vector_weight=0.0))
        for backup in index.backups():
            assert index.verify_backup(backup.name).problems == [], f"operation {n}"
        index.close()
        shutil.rmtree(directory)
    # Before 3.11 pathlib kept functions of its own, which are not counted.
    assert n > (30 if sys.version_info >= (3, 11) else 20)
