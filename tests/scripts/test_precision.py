"""What `auto` is, asked by the service, by its launcher and by whoever embeds anew."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import typer

from deployments.app import _identity
from deployments.settings import Settings, load_settings
from engine.errors import ModelNotFoundError
from engine.model import precision
from engine.model.files import (
    CONFIG_FILE,
    GRAPH_VERSION,
    WEIGHTS_FILE,
    FileStamp,
    ModelManifest,
    Precision,
    graph_file,
    write_model_manifest,
)
from engine.recovery.precision import precision_of
from scripts.cli.offline import reembed
from scripts.launcher.preflight import check_model
from scripts.launcher.runtime_dir import LauncherError
from tests.support.index_under_test import IDENTITY, add, open_index

INT8_PROCESSOR = "flags : fpu avx512_vnni\n"


@pytest.fixture(autouse=True)
def an_int8_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "read_cpuinfo", lambda: INT8_PROCESSOR)


def settings_of(tmp_path: Path, *graphs: Precision) -> Settings:
    """Of a model directory with these graphs alone."""
    model_dir = tmp_path / "model"
    model_dir.mkdir()
    stamp = FileStamp(sha256="0" * 64, size=1, mtime_ns=1)
    files = dict.fromkeys([WEIGHTS_FILE, *map(graph_file, graphs)], stamp)
    name = "all-MiniLM-L6-v2"
    write_model_manifest(
        model_dir, ModelManifest(name=name, graph_version=GRAPH_VERSION, files=files)
    )
    (model_dir / CONFIG_FILE).write_text(json.dumps({"hidden_size": 384}))
    return load_settings(data_dir=tmp_path / "data", model_dir=model_dir, model_precision="auto")


def make_store(tmp_path: Path, stored: Precision) -> None:
    index = open_index(tmp_path, identity=dataclasses.replace(IDENTITY, precision=stored))
    add(index, "tea at four")
    index.close()


def served(settings: Settings) -> str:
    assert settings.model_dir is not None
    return _identity(settings, settings.model_dir).precision


def embedded_anew(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Precision:
    asked: list[Precision] = []

    def embedder(model_dir: Path, *, precision: Precision) -> None:
        asked.append(precision)
        raise ModelNotFoundError("that is all this test wants to know")

    monkeypatch.setattr(reembed, "Embedder", embedder)
    monkeypatch.setattr(reembed, "load_settings", lambda **_: settings)
    with pytest.raises(typer.Exit):
        reembed.main()
    (precision,) = asked
    return precision


def test_vectors_of_fp32_stay_on_a_processor_that_would_run_int8(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_store(tmp_path, "fp32")
    settings = settings_of(tmp_path, "fp32")
    assert served(settings) == "fp32"
    check_model(settings)
    assert embedded_anew(settings, monkeypatch) == "fp32"


def test_a_new_store_and_one_of_int8_get_what_suits_the_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(tmp_path, "int8")
    assert served(settings) == "int8"
    check_model(settings)
    make_store(tmp_path, "int8")
    assert served(settings) == "int8"
    check_model(settings)
    assert embedded_anew(settings, monkeypatch) == "int8"


def test_a_graph_that_is_not_set_up_is_named_before_anything_starts(tmp_path: Path) -> None:
    make_store(tmp_path, "fp32")
    settings = settings_of(tmp_path, "int8")
    with pytest.raises(LauncherError, match=r"no model-fp32\.onnx.*MODEL_PRECISION"):
        check_model(settings)


def test_what_is_asked_for_wins_over_what_is_stored(tmp_path: Path) -> None:
    make_store(tmp_path, "fp32")
    assert precision_of(tmp_path / "data", "int8") == "int8"
