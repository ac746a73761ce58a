"""Which files make up the model, where they live, and how to tell that they are the right ones.

A model directory holds the official files, the graphs built from them, and a manifest. The
manifest is written last: a directory that has one was complete when it was written. It keeps
the size and modification time under which each file's hash was taken, so that checking a
directory again costs a few `stat` calls.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from engine.commands import script_command
from engine.disk.durable_files import replacing, sha256_of
from engine.errors import ModelNotFoundError

Precision = Literal["fp32", "int8"]

PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")

WEIGHTS_FILE = "model.safetensors"
TOKENISER_FILE = "tokenizer.json"
CONFIG_FILE = "config.json"
MANIFEST_FILE = "manifest.json"

GRAPH_VERSION = 2
"""Raise it when the graphs that the code builds change; set-up then builds them anew."""

SET_UP_COMMAND = script_command("setup_model")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """The official files of one model."""

    name: str
    sha256: Mapping[str, str]
    """File name to hex digest; a file with another digest is not the model's."""
    n_bytes: int
    """Size of all of them, for progress bars."""


ALL_MINILM_L6_V2 = ModelSpec(
    name="all-MiniLM-L6-v2",
    sha256={
        WEIGHTS_FILE: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        TOKENISER_FILE: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        CONFIG_FILE: "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    },
    n_bytes=90_868_376 + 466_247 + 612,
)


def graph_file(precision: Precision) -> str:
    """Name of the ONNX graph of one precision."""
    return f"model-{precision}.onnx"


def default_model_dir(environ: Mapping[str, str], home: Path) -> Path:
    """Where the model lives: `MODEL_DIR`, or a cache that every checkout shares."""
    if explicit := environ.get("MODEL_DIR"):
        return Path(explicit).expanduser()
    return shared_model_dir(environ, home)


def shared_model_dir(environ: Mapping[str, str], home: Path) -> Path:
    """The cache that every checkout shares, whatever `MODEL_DIR` says."""
    cache = Path(environ.get("XDG_CACHE_HOME") or home / ".cache")
    return cache / "faiss-memory" / "models" / ALL_MINILM_L6_V2.name


@dataclass(frozen=True, slots=True, kw_only=True)
class FileStamp:
    """A file's hash, and the `stat` values under which it was taken."""

    sha256: str
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> FileStamp:
        """Hash a file. Reads all of it."""
        stat = path.stat()
        return cls(sha256=sha256_of(path), size=stat.st_size, mtime_ns=stat.st_mtime_ns)

    def matches(self, path: Path) -> bool:
        """Whether the file still has this content; reads it only when its `stat` changed."""
        if not path.is_file():
            return False
        stat = path.stat()
        if (stat.st_size, stat.st_mtime_ns) == (self.size, self.mtime_ns):
            return True
        return stat.st_size == self.size and sha256_of(path) == self.sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelManifest:
    """What set-up left in a model directory."""

    name: str
    graph_version: int
    """`GRAPH_VERSION` of the code that built the graphs."""
    files: Mapping[str, FileStamp]

    @property
    def fingerprint(self) -> str:
        """sha256, hex, of the weights that the vectors come from."""
        return self.files[WEIGHTS_FILE].sha256


def write_model_manifest(model_dir: Path, manifest: ModelManifest) -> None:
    """Put the manifest in place, whole and durable."""
    with replacing(model_dir / MANIFEST_FILE) as file:
        file.write(json.dumps(asdict(manifest), indent=2).encode() + b"\n")


def read_model_manifest(model_dir: Path) -> ModelManifest:
    """Read the manifest of a model directory.

    Raises:
        ModelNotFoundError: there is none, or it cannot be read; says what to run.
    """
    path = model_dir / MANIFEST_FILE
    try:
        raw = json.loads(path.read_bytes())
        files = {name: FileStamp(**stamp) for name, stamp in raw["files"].items()}
        manifest = ModelManifest(name=raw["name"], graph_version=raw["graph_version"], files=files)
        _ = manifest.fingerprint
    except FileNotFoundError as exc:
        raise ModelNotFoundError(
            f"no model in {model_dir}: run `{SET_UP_COMMAND} --model-dir {model_dir}`"
        ) from exc
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise damaged(model_dir, MANIFEST_FILE) from exc
    return manifest


def damaged(model_dir: Path, name: str) -> ModelNotFoundError:
    """The error for a model file that is missing or is not what set-up left."""
    return ModelNotFoundError(
        f"{model_dir / name} is missing or damaged: "
        f"run `{SET_UP_COMMAND} --model-dir {model_dir}` to repair it"
    )


def is_complete(model_dir: Path, spec: ModelSpec, precisions: Sequence[Precision]) -> bool:
    """Whether the directory holds this model and these graphs, unharmed. Cheap, see `FileStamp`."""
    try:
        manifest = read_model_manifest(model_dir)
    except ModelNotFoundError:
        return False
    if (manifest.name, manifest.graph_version) != (spec.name, GRAPH_VERSION):
        return False
    names = [*spec.sha256, *(graph_file(precision) for precision in precisions)]
    if any(name not in manifest.files for name in names):
        return False
    official = all(manifest.files[name].sha256 == spec.sha256[name] for name in spec.sha256)
    return official and all(manifest.files[name].matches(model_dir / name) for name in names)


def missing_official_files(directory: Path, spec: ModelSpec) -> list[str]:
    """Official files that are absent or have another hash. Reads all of them."""
    return [
        name
        for name, digest in spec.sha256.items()
        if not (directory / name).is_file() or sha256_of(directory / name) != digest
    ]
