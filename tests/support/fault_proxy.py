"""A proxy between an S3 client and a server that breaks what passes through it, on request."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

Fault = Literal["unavailable", "denied", "hang", "lose answer", "truncate", "corrupt", "slow"]
Choose = Callable[[str, str], Fault | None]
"""The fault for a method and a path, if any."""

_DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
_DRIP_BYTES = 4096


def no_fault(method: str, path: str) -> Fault | None:
    return None


def always(fault: Fault, *, method: str = "", path: str = "") -> Choose:
    """A fault for every request of a method whose path contains a part."""

    def choose(its_method: str, its_path: str) -> Fault | None:
        return fault if method in ("", its_method) and path in its_path else None

    return choose


def once(fault: Fault, *, method: str = "", path: str = "") -> Choose:
    """The same, for the first such request only."""
    matching, left = always(fault, method=method, path=path), [fault]

    def choose(its_method: str, its_path: str) -> Fault | None:
        return left.pop() if left and matching(its_method, its_path) else None

    return choose


@dataclass
class FaultProxy:
    """Set `choose` to break requests; `seen` counts those that came."""

    url: str
    choose: Choose = no_fault
    seen: list[tuple[str, str]] = field(default_factory=list)
    arrived: threading.Event = field(default_factory=threading.Event)
    """Set when a request was met by a fault."""
    released: threading.Event = field(default_factory=threading.Event)
    """Ends every hanging request."""


@contextmanager
def fault_proxy(upstream: str) -> Iterator[FaultProxy]:
    """A running proxy in front of a server."""
    target = urlsplit(upstream)
    assert target.hostname is not None

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            proxy.seen.append((self.command, self.path))
            fault = proxy.choose(self.command, self.path)
            if fault is not None:
                proxy.arrived.set()
            if fault == "hang":
                proxy.released.wait()
                self.close_connection = True
                return
            if fault in ("unavailable", "denied"):
                self._answer(503 if fault == "unavailable" else 403, {}, _DENIED, None)
                return
            connection = http.client.HTTPConnection(str(target.hostname), target.port, timeout=60)
            headers = {name: value for name, value in self.headers.items() if name != "Expect"}
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            if fault == "lose answer":
                self.close_connection = True
                return
            self._answer(answer.status, dict(answer.getheaders()), content, fault)

        def _answer(
            self, status: int, headers: dict[str, str], content: bytes, fault: Fault | None
        ) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                    self.send_header(name, value)
            length = headers.get("Content-Length", len(content))
            self.send_header(
                "Content-Length", str(length if self.command == "HEAD" else len(content))
            )
            self.end_headers()
            if fault == "truncate":
                content, self.close_connection = content[: len(content) // 2], True
            if fault == "corrupt":
                at = len(content) // 2
                content = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
            step = _DRIP_BYTES if fault == "slow" else max(len(content), 1)
            for start in range(0, len(content), step):
                self.wfile.write(content[start : start + step])
                if fault == "slow":
                    proxy.released.wait(0.05)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on

        def log_message(self, format: str, *args: object) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    proxy = FaultProxy(url=f"http://127.0.0.1:{listener.server_address[1]}")
    thread = threading.Thread(target=listener.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.released.set()
        listener.shutdown()
        listener.server_close()
