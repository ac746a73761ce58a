"""Exits with 0 when the service in this container is ready. Run as `python -I -S healthcheck.py`.

It runs every few seconds for as long as the container does, so it imports next to nothing.
"""

import os
import socket
import sys

TIMEOUT_S = 4


def is_ready(host: str, port: int, name: str) -> bool:
    """Ask for `/health/ready` under a host name that the service answers to."""
    request = f"GET /health/ready HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n"
    with socket.create_connection((host, port), TIMEOUT_S) as connection:
        connection.sendall(request.encode())
        return connection.recv(12) == b"HTTP/1.1 200"


def main() -> int:
    """Read what the service was told, and ask it."""
    wanted = os.environ.get("HOST") or "0.0.0.0"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(wanted, wanted)
    names = [name.strip() for name in os.environ.get("ALLOWED_HOSTS", "").split(",")]
    name = next((name for name in names if name not in ("", "*")), "localhost")
    try:
        return 0 if is_ready(host, int(os.environ.get("PORT") or 8000), name) else 1
    except OSError as exc:
        sys.stdout.write(f"{exc}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
