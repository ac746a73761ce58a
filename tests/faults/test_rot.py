"""One byte flipped in, or the tail cut off, every file of a data directory and of a backup.

Whatever is damaged, either every answer is what it was, or the store is refused with a sentence
that names the command to run; and that command brings back what was acknowledged.
"""

from __future__ import annotations

import random
import shlex
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from engine.errors import (
    BackupError,
    BackupNotFoundError,
    RottenRowError,
    StorageError,
    StoreCorruptError,
)
from engine.memory_index import MemoryIndex
from engine.records import MemoryFilter, MemoryId, MemoryPatch
from engine.store import soundness
from engine.store.database import DATABASE_NAME
from scripts.cli.offline.store import app
from tests.support.fakes import embedding_of
from tests.support.index_under_test import add, fresh_request_id, open_index, search

SEED = 20261122
OPTIONS: dict[str, Any] = {"max_backups": 0, "deltas_share": 100.0, "merge_below_bytes": 0}
SENTENCE = f"Stop the service and run: {sys.executable} -m scripts."


@dataclass(frozen=True)
class Original:
    """A data directory as a killed service leaves it: its last writes are in the WAL alone."""

    directory: Path
    answers: list[object]
    backup: str
    """The newest; it holds all but the last write."""

    def copy_to(self, directory: Path) -> Path:
        shutil.copytree(self.directory, directory)
        return directory / "data"


def answers_of(index: MemoryIndex) -> list[object]:
    """Everything that a caller could see, and what a repeated write would be told."""
    pages = [
        index.list_memories(where, offset=0, limit=100)
        for where in (
            MemoryFilter(),
            MemoryFilter(source_prefix="notes/"),
            MemoryFilter(metadata={"colour": "red"}),
            MemoryFilter(since_us=0, until_us=1 << 60),
        )
    ]
    searches = [search(index, text, k=50) for text in ("red text", "eleven", "größe")]
    return [index.count(), pages, searches, index.stats().last_updated, index.stats().lsn]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Original:
    directory = tmp_path_factory.mktemp("rot") / "original"
    index = open_index(directory, **OPTIONS)
    for n in range(12):
        colour = ["red", "blue"][n % 2]
        add(index, f"{colour} text {n} größe", source=f"notes/{n}", metadata={"colour": colour})
    index.backup("manual")
    index.delete([MemoryId(3)], request_id=fresh_request_id()).result()
    index.close()  # leaves a cache, and empties the WAL
    index = open_index(directory, **OPTIONS)
    index.update(
        MemoryId(4), MemoryPatch(text="new words"), embedding_of("new words")[None], request_id="u"
    ).result()
    backup = index.backup("manual").name
    index.verify_backup(backup)
    add(index, "eleven after the backup")
    answers = answers_of(index)
    killed = directory.parent / "killed"
    shutil.copytree(directory, killed)
    index.close()
    assert (killed / "data" / f"{DATABASE_NAME}-wal").stat().st_size
    return Original(directory=killed, answers=answers, backup=backup)


def damages(content: bytes, n: int, name: str) -> Iterator[tuple[str, bytes]]:
    """`n` seeded flips and `n // 4` cuts of a file's content."""
    rng = random.Random(f"{SEED} {name}")
    for at in sorted(rng.sample(range(len(content)), min(n, len(content)))):
        flipped = content[at] ^ rng.choice([1, 2, 16, 128, 255])
        yield f"{at} flipped", content[:at] + bytes([flipped]) + content[at + 1 :]
    for length in sorted({0, len(content) - 1, *rng.choices(range(len(content)), k=n // 4)}):
        yield f"cut to {length}", content[:length]


def refusal_or_same_answers(data_dir: Path, original: Original, what: str) -> str | None:
    try:
        index = open_index(data_dir.parent, **OPTIONS)
    except StorageError as exc:
        return str(exc)
    assert answers_of(index) == original.answers, what
    index.close()
    return None


def doctor(data_dir: Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["doctor", "--data-dir", str(data_dir)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("name", "n", "is_refused"),
    [
        (DATABASE_NAME, 120, True),
        (f"{DATABASE_NAME}-wal", 60, True),
        (f"{DATABASE_NAME}-shm", 12, False),
        ("postings.npz", 24, False),
        ("acknowledged", 16, False),
        ("lock", 4, False),
    ],
)
def test_a_damaged_file_of_the_store_changes_no_answer_or_is_refused(
    original: Original, tmp_path: Path, name: str, n: int, is_refused: bool
) -> None:
    content = (original.directory / "data" / name).read_bytes()
    n_refused = 0
    for what, damaged in damages(content, n, name):
        data_dir = original.copy_to(tmp_path / "damaged")
        (data_dir / name).write_bytes(damaged)
        refusal = refusal_or_same_answers(data_dir, original, what)
        if refusal is not None:
            n_refused += 1
            assert SENTENCE in refusal or "newer release" in refusal, (what, refusal)
        shutil.rmtree(data_dir.parent)
    assert bool(n_refused) == is_refused


@pytest.mark.parametrize("name", [DATABASE_NAME, f"{DATABASE_NAME}-wal", "postings.npz"])
def test_the_command_that_the_doctor_names_mends_it(
    original: Original, tmp_path: Path, name: str
) -> None:
    content = (original.directory / "data" / name).read_bytes()
    n_mended = 0
    for what, damaged in damages(content, 8, f"{name} doctor"):
        data_dir = original.copy_to(tmp_path / "damaged")
        (data_dir / name).write_bytes(damaged)
        code, output = doctor(data_dir)
        if code:
            n_mended += 1
            command = output.split("-m scripts.store ")[1].partition(" (")[0]
            result = CliRunner().invoke(app, shlex.split(command))
            assert result.exit_code == 0, (what, result.output)
        index = open_index(data_dir.parent, **OPTIONS)
        n_lost = 13 - 1 - index.count()
        assert n_lost <= 1, what  # the write after the newest backup
        assert add(index, "fresh")[0] >= 14, "an id was used twice"
        index.close()
        assert doctor(data_dir)[0] == 0
        shutil.rmtree(data_dir.parent)
    assert n_mended


def test_a_damaged_file_of_a_backup_is_found_and_harms_nothing_else(
    original: Original, tmp_path: Path
) -> None:
    data_dir = original.copy_to(tmp_path / "damaged")
    directory = data_dir / "backups" / original.backup
    names = sorted(path.name for path in directory.iterdir())
    assert len(names) == 4  # a base, a delta, the manifest, and when it was verified
    index = open_index(data_dir.parent, **OPTIONS)
    verified_at = index.backups()[0].verified_at
    for name in names:
        content = (directory / name).read_bytes()
        for what, damaged in damages(content, 24, name):
            (directory / name).unlink()  # it may be a hard link
            (directory / name).write_bytes(damaged)
            listed = {backup.name: backup for backup in index.backups()}
            if name == "verified":
                assert listed[original.backup].verified_at in (None, verified_at), what
            elif name == "manifest.json":
                assert original.backup not in listed or damaged.strip() == content, what
                with pytest.raises(BackupNotFoundError):
                    index.restore(original.backup).result()
            else:
                assert index.verify_backup(original.backup).problems, what
                with pytest.raises(BackupError, match="not the file that was written"):
                    index.restore(original.backup).result()
            assert doctor_names(data_dir, original.backup, name, index), what
            assert index.count() == original.answers[0]
        (directory / name).write_bytes(content)
    assert index.verify_backup(original.backup).problems == []
    index.close()


def doctor_names(data_dir: Path, backup: str, name: str, index: MemoryIndex) -> bool:
    """Whether the damage would be reported; the index has the lock, so not by the command."""
    backups = index.backup_files
    return name == "verified" or backup in backups.unreadable() or bool(backups.damage(backup))


def overwrite(data_dir: Path, old: bytes, new: bytes) -> None:
    path = data_dir / DATABASE_NAME
    content = path.read_bytes()
    assert content.count(old) >= 1
    path.write_bytes(content.replace(old, new))


def overwrite_elsewhere(data_dir: Path, old: bytes, new: bytes) -> None:
    """In another process: closing the file here would drop this one's locks on it."""
    with ProcessPoolExecutor(1, get_context("spawn")) as another:
        another.submit(overwrite, data_dir, old, new).result()


def checkpointed(original: Original, tmp_path: Path) -> Path:
    """A copy whose WAL has been folded in."""
    data_dir = original.copy_to(tmp_path / "copy")
    open_index(data_dir.parent, **OPTIONS).close()
    return data_dir


def test_a_byte_that_rots_inside_a_text_is_named_with_its_memory(
    original: Original, tmp_path: Path
) -> None:
    data_dir = checkpointed(original, tmp_path)
    overwrite(data_dir, b"red text 6", b"red texT 6")
    with pytest.raises(StorageError) as refusal:
        open_index(data_dir.parent, **OPTIONS)
    assert "memories row 7 is not as it was written" in str(refusal.value)
    assert f"scripts.store restore {original.backup}" in str(refusal.value)
    code, output = doctor(data_dir)
    assert code == 1
    assert "memories row 7 is not as it was written" in output
    assert "texT" not in output + str(refusal.value)


def test_a_row_that_rots_under_a_running_index_fails_alone_and_never_reaches_a_backup(
    original: Original, tmp_path: Path
) -> None:
    data_dir = checkpointed(original, tmp_path)
    index = open_index(data_dir.parent, **OPTIONS)
    overwrite_elsewhere(data_dir, b"red text 6", b"red texT 6")
    with ThreadPoolExecutor(1) as pool:  # a thread whose connection has nothing cached
        with pytest.raises(RottenRowError, match="memory 7"):
            pool.submit(index.get, MemoryId(7)).result()
        assert pool.submit(index.get, MemoryId(8)).result().text.startswith("blue")
    shutil.rmtree(data_dir / "backups")
    (data_dir / "backups").mkdir()
    with pytest.raises(StorageError, match="memories row 7"):
        index.backup("manual")
    assert index.backups() == []
    assert add(index, "goes on") == [14]
    index.close()


def test_a_text_that_rots_to_what_is_no_text_is_not_told_to_logs(
    original: Original, tmp_path: Path
) -> None:
    data_dir = checkpointed(original, tmp_path)
    index = open_index(data_dir.parent, **OPTIONS)
    overwrite_elsewhere(data_dir, b"red text 6", b"red tex\xff 6")

    def traceback_of_get() -> str:
        with pytest.raises(StoreCorruptError) as refusal:
            index.get(MemoryId(7))
        return "".join(traceback.format_exception(refusal.value))

    with ThreadPoolExecutor(1) as pool:
        told = pool.submit(traceback_of_get).result()
    index.close()
    assert "Could not decode to UTF-8 column 'text'. Stop the service" in told
    assert "red tex" not in told


def test_a_large_copy_is_checked_in_a_process_of_its_own(
    original: Original, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_dir = checkpointed(original, tmp_path)
    monkeypatch.setattr(soundness, "_LARGE_BYTES", 0)
    soundness.check_copy(data_dir / DATABASE_NAME)
    overwrite(data_dir, b"red text 6", b"red texT 6")
    with pytest.raises(StoreCorruptError, match="memories row 7"):
        soundness.check_copy(data_dir / DATABASE_NAME)


@pytest.mark.parametrize("state", ["missing", "empty", "overwritten"])
def test_a_destroyed_database_is_never_taken_for_a_new_one(
    original: Original, tmp_path: Path, state: str
) -> None:
    data_dir = original.copy_to(tmp_path / "copy")
    destroy: dict[str, Callable[[Path], object]] = {
        "missing": lambda path: path.unlink(),
        "empty": lambda path: path.write_bytes(b""),
        "overwritten": lambda path: path.write_bytes(b"\xff" * 50_000),
    }
    for name in (DATABASE_NAME, f"{DATABASE_NAME}-wal"):
        destroy[state](data_dir / name)
    for _ in range(2):  # a refusal changes nothing
        with pytest.raises(StorageError, match=f"scripts.store restore {original.backup}"):
            open_index(data_dir.parent, **OPTIONS)
    result = CliRunner().invoke(app, ["restore", original.backup, "--data-dir", str(data_dir)])
    assert result.exit_code == 0, result.output
    index = open_index(data_dir.parent, **OPTIONS)
    assert index.count() == 11
    assert add(index, "fresh")[0] == 14, "an id was used twice"
    index.close()


def test_writes_that_a_damaged_wal_has_lost_are_missed(original: Original, tmp_path: Path) -> None:
    data_dir = original.copy_to(tmp_path / "copy")
    (data_dir / f"{DATABASE_NAME}-wal").unlink()
    with pytest.raises(StorageError, match=r"ends at write 13, but write 15 was acknowledged"):
        open_index(data_dir.parent, **OPTIONS)
    shutil.rmtree(data_dir / "backups")
    with pytest.raises(StorageError, match=r"scripts\.store accept"):
        open_index(data_dir.parent, **OPTIONS)
    result = CliRunner().invoke(app, ["accept", "--data-dir", str(data_dir)])
    assert result.exit_code == 0, result.output
    index = open_index(data_dir.parent, **OPTIONS)
    assert index.count() == 11
    assert add(index, "fresh") == [14], "an id was used twice"
    index.close()
