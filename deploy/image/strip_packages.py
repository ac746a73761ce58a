"""Removes from a virtual environment what serving never imports. A step of the Dockerfile.

    python strip_packages.py <environment> --cloud-sync true|false --full-ray true|false

Found by running the service with `PYTHONPYCACHEPREFIX` set and listing what it had compiled, and
by the libraries in `/proc/<pid>/maps`. tests/image/test_image.py runs the service without them.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

SET_UP_ONLY = ["onnx", "ml-dtypes", "safetensors", "hf-xet", "huggingface-hub", "fsspec"]
"""They fetch the model and build its graphs."""
CLOUD_SYNC_ONLY = ["boto3", "botocore", "s3transfer", "jmespath"]
AWS_SERVICES = {"s3", "sts", "sso", "sso-oidc", "signin"}
"""S3, and what the credential chain asks; boto3 describes 400 more."""
RAY_TOOLS = [
    *["virtualenv", "distlib", "python-discovery", "py-spy", "colorful", "smart-open"],
    *["google-api-core", "google-auth", "googleapis-common-protos", "proto-plus"],
    *["pyasn1", "pyasn1-modules"],
]
"""For runtime environments, the dashboard, its metrics and the command line."""
RAY_PARTS = [
    "jars",
    "rllib",
    "data",
    "train",
    "tune",
    "llm",
    "air",
    "cpp",
    "workflow",
    "job_submission",
    "autoscaler",
    "scripts",
    "dashboard/client",
    "dashboard/modules",
    "_private/runtime_env/agent/thirdparty_files",
]
UNUSED = [
    "onnxruntime/capi/libonnxruntime.so*",  # for C; Python has its own
    "onnxruntime/quantization",
    "onnxruntime/tools",
    "onnxruntime/transformers",
    "zstandard/_cffi.*",  # the second of two ways into the same library
    "numpy/distutils",
    "numpy/f2py",
    "numpy/_core/_simd.*",  # for NumPy's own tests
    "jsonschema/benchmarks",
    "*.dist-info/sboms",
]
SOURCES = ["*.pyi", "*.pxd", "*.pyx", "*.pxi", "*.c", "*.cc", "*.cpp", "*.h", "*.hpp", "*.a"]


def main() -> None:
    """Strip one environment."""
    parser = argparse.ArgumentParser()
    parser.add_argument("environment", type=Path)
    parser.add_argument("--cloud-sync", choices=["true", "false"], required=True)
    parser.add_argument("--full-ray", choices=["true", "false"], required=True)
    wanted = parser.parse_args()
    [packages] = wanted.environment.glob("lib/python3*/site-packages")
    uninstall(SET_UP_ONLY if wanted.cloud_sync == "true" else SET_UP_ONLY + CLOUD_SYNC_ONLY)
    if wanted.cloud_sync == "true":
        remove(path for path in aws_services(packages) if path.name not in AWS_SERVICES)
    if wanted.full_ray == "false":
        uninstall(RAY_TOOLS)
        remove(packages / "ray" / part for part in RAY_PARTS)
        remove(path for path in (wanted.environment / "bin").iterdir() if is_script(path))
    for pattern in UNUSED:
        remove(packages.glob(pattern))
    for pattern in SOURCES:
        remove(packages.rglob(pattern))
    remove(path for path in packages.rglob("tests") if path.is_dir())
    strip_symbols(packages)
    # Last, since this script runs with them.
    uninstall(["setuptools", "pip"])


def uninstall(distributions: list[str]) -> None:
    """Uninstall those that are installed."""
    command = [sys.executable, "-m", "pip", "uninstall", "--quiet", "--yes", *distributions]
    subprocess.run(command, check=True)


def remove(paths: Iterable[Path]) -> None:
    """Delete files and directories."""
    for path in list(paths):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def aws_services(packages: Path) -> list[Path]:
    """The directories that describe one service each."""
    data = [packages / "botocore" / "data", packages / "boto3" / "data"]
    return [path for directory in data for path in directory.iterdir() if path.is_dir()]


def is_script(path: Path) -> bool:
    """Whether this is a command of a package, not the interpreter or `activate`."""
    return not path.name.startswith("python")


def strip_symbols(packages: Path) -> None:
    """Take symbols out of programs and libraries, which no one debugs here."""
    for path in packages.rglob("*"):
        # Libraries that auditwheel has put into `*.libs` break when they are rewritten.
        if path.is_file() and not path.is_symlink() and not path.parent.name.endswith(".libs"):
            with path.open("rb") as file:
                is_elf = file.read(4) == b"\x7fELF"
            if is_elf:
                subprocess.run(["strip", "--strip-unneeded", str(path)], check=True)


if __name__ == "__main__":
    main()
