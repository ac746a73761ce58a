"""Every function of the shell skill, under bash and zsh, with texts that break careless quoting."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import ROOT
from tests.support.fake_service import FakeService, serving

SKILL = ROOT / "integrations" / "openclaw-skill.md"
Shell = Callable[..., subprocess.CompletedProcess[str]]

AWKWARD = {
    "quotes": """it's "quoted" and `ticked` \\ \\n back""",
    "newlines": "line one\nline two\n\n\tline four",
    "substitution": "$(touch pwned) ${HOME} `touch pwned` $((1+1)) !! %s %n",
    "emoji": "🧠 naïve 東京 ‏עברית 👩‍👩‍👧",
    "options": "-n --data @/etc/passwd",
    "ten thousand characters": "long text " * 1_000,
    "fifty thousand wide characters": "東京" * 25_000,
}


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def url(service: FakeService) -> Iterator[str]:
    with serving(service) as url:
        yield url


@pytest.fixture(params=["bash", "zsh"])
def shell(request: pytest.FixtureRequest, url: str, tmp_path: Path) -> Shell:
    for tool in (request.param, "jq", "curl"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    [functions] = re.findall(r"^```bash\n(.*?)^```", SKILL.read_text("utf-8"), re.M | re.S)
    # Strict modes are what scripts of users set.
    (tmp_path / "skill.sh").write_text(f"set -u\n{functions}", "utf-8")

    def run(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "call.sh").write_text(f". ./skill.sh\n{shlex.join(words)}\n", "utf-8")
        return subprocess.run(
            [request.param, "call.sh"],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "FAISS_URL": url, **env},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.mark.parametrize("text", AWKWARD.values(), ids=AWKWARD.keys())
def test_awkward_texts_are_stored_and_found_to_the_letter(
    service: FakeService, shell: Shell, text: str, tmp_path: Path
) -> None:
    source = text[:100]
    added = shell("memory_add_faiss", text, source)
    assert (added.returncode, added.stderr) == (0, "")
    assert added.stdout == "Memory added successfully (id: 1)\n"
    assert service.memories[1]["text"] == text
    assert service.memories[1]["source"] == source

    found = shell("memory_search_faiss", text[:9_000], "1", "0")
    assert found.stdout.endswith(f"% | {source}: {text}\n")
    listed = shell("memory_list_faiss", "0", "5", source)
    assert listed.stdout == f"[1] {source}: {text}\n"
    novel = shell("memory_is_novel", text)
    assert novel.returncode in (0, 1)
    deleted = shell("memory_delete_source_faiss", source)
    assert deleted.stdout == "Deleted 1 memories\n"
    assert not (tmp_path / "pwned").exists()


def test_searching_prints_percent_source_and_text(service: FakeService, shell: Shell) -> None:
    for text in ("green tea", "black tea", "coffee"):
        service._add({"text": text, "source": "drinks"})
    assert shell("memory_search_faiss", "green tea", "2").stdout == (
        "100% | drinks: green tea\n50% | drinks: black tea\n"
    )
    assert shell("memory_search_faiss", "green tea", "5", "0.9", "false").stdout == (
        "100% | drinks: green tea\n"
    )


def test_adding_prints_the_message(shell: Shell) -> None:
    assert shell("memory_add_faiss", "a b", "s").stdout == "Memory added successfully (id: 1)\n"
    assert shell("memory_add_faiss", "a b", "s").stdout == "Duplicate skipped\n"
    forced = shell("memory_add_faiss", "a b", "s", "false")
    assert forced.stdout == "Memory added successfully (id: 2)\n"


def test_novelty_is_the_exit_status(service: FakeService, shell: Shell) -> None:
    novel = shell("memory_is_novel", "a b")
    assert (novel.returncode, novel.stdout) == (0, "Novel\n")
    service._add({"text": "a b", "source": "s"})
    known = shell("memory_is_novel", "a b")
    assert (known.returncode, known.stdout) == (1, "Not novel: 100% | s: a b\n")
    assert shell("memory_is_novel", "b", "0.99").returncode == 0


def test_deleting_listing_and_the_rest(service: FakeService, shell: Shell) -> None:
    for n in range(3):
        service._add({"text": f"fact {n}", "source": f"s & t/{n}", "deduplicate": False})
    assert shell("memory_delete_faiss", "2").stdout == "Deleted memory 2: fact 1\n"
    assert shell("memory_list_faiss", "1").stdout == "[3] s & t/2: fact 2\n"
    assert shell("memory_list_faiss", "0", "20", "& t/0").stdout == "[1] s & t/0: fact 0\n"
    assert '"total_memories": 2' in shell("memory_stats").stdout
    assert '"status": "ok"' in shell("memory_health").stdout
    assert '"dry_run": false' in shell("memory_dedup_faiss", "false", "0.95").stdout
    assert shell("memory_rebuild_index").stdout == (
        "Index rebuilt successfully: 2 files, 5 memories added\n"
    )
    made = shell("memory_backup", "before/the trip")
    assert made.stdout.startswith("Backup created successfully: backups/before_the_trip_")
    [name] = service.backups
    assert shell("memory_backups").stdout == f"{name}  1970-01-01T00:00:01Z\n"
    restored = shell("memory_restore", name)
    assert restored.stdout == f"Restored successfully: 2 memories from {name}\n"


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (("memory_delete_faiss", "9"), "FAISS API error 404: Memory ID 9 not found\n"),
        (("memory_delete_faiss", "../stats"), "FAISS API error 404: Not Found\n"),
        (("memory_add_faiss", "", "s"), "FAISS API error 422: text: must not be empty\n"),
        (("memory_is_novel", " "), "FAISS API error 422: text: must not be empty\n"),
        (("memory_restore", "x"), "FAISS API error 404: Backup 'x' not found\n"),
        (("memory_search_faiss",), "FAISS API error 422: query: must not be empty\n"),
    ],
)
def test_a_failed_call_prints_the_error_and_returns_non_zero(
    shell: Shell, call: tuple[str, ...], error: str
) -> None:
    result = shell(*call)
    assert result.returncode == 2
    assert (result.stdout, result.stderr) == ("", error)


def test_a_service_that_is_down_is_named(shell: Shell) -> None:
    with serving(FakeService()) as gone:
        pass
    result = shell("memory_stats", FAISS_URL=gone)
    assert result.returncode != 0
    assert result.stderr.startswith(f"Could not reach {gone}: curl: (7)")
    assert "make serve" in result.stderr


def test_the_key_is_sent_and_a_wrong_one_is_reported(service: FakeService, shell: Shell) -> None:
    service.api_key = "k3y with spaces"
    bad = shell("memory_stats", FAISS_API_KEY="wrong")
    assert bad.stderr == "FAISS API error 401: Invalid or missing API key\n"
    assert shell("memory_stats", FAISS_API_KEY=service.api_key).returncode == 0
