"""Runs HAProxy for Ray Serve with a safer configuration than Serve writes.

Serve's configuration opens a statistics page and a metrics exporter on every interface, an
admin socket to every user, logs each request to a UDP port, and answers 500 while the ingress
restarts. Serve has no switches for these, but starts whatever `RAY_SERVE_HAPROXY_BINARY_PATH`
names: a line of shell that runs this file by path with `python -I -S`:

    haproxy_shim.py <address to listen on> <haproxy> [arguments of haproxy ...]

Serve would give the ingress the address that HAProxy listens on; so Serve is told loopback, and
the address meant for clients is put in here. It also bounds what connections may cost before any
key is looked at, and ties HAProxy to the life of its manager, so that none outlives a killed
service.
"""

import ctypes
import os
import re
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1
MAX_CONNECTIONS = 4096
_OTHER_FILES = 128
_DROPPED_SECTIONS = ("frontend prometheus", "listen stats")


def _error_page(status: str, detail: str, *headers: str) -> str:
    body = f'{{"detail":"{detail}"}}\n'
    lines = [
        f"HTTP/1.1 {status}",
        "Content-Type: application/json",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Cross-Origin-Resource-Policy: same-origin",
        *headers,
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join(lines) + "\r\n\r\n" + body


_ALLOWED = "Allow: GET, HEAD, OPTIONS, POST, PATCH, DELETE"
ERROR_PAGES = {
    "400.http": _error_page("400 Bad Request", "This is no valid HTTP request"),
    "404.http": _error_page("404 Not Found", "Not Found"),
    "405.http": _error_page("405 Method Not Allowed", "Method Not Allowed", _ALLOWED),
    "408.http": _error_page("408 Request Timeout", "The request did not come in time"),
    "503.http": _error_page(
        "503 Service Unavailable",
        "The service is restarting; try again shortly",
        "Retry-After: 2",
    ),
    "502.http": _error_page(
        "502 Bad Gateway",
        "The service restarted meanwhile: the request may or may not have been applied; "
        "send it again with the same Idempotency-Key",
        "Retry-After: 2",
    ),
}
"""503: it reached nobody, or only reads. 502: whoever got it is gone.

HAProxy before 3.3 has a page of its own for what never becomes a request (haproxy#3032).
"""
# Serve answers `/-/…` itself, to every page and host, and obeys headers of its own: with them a
# caller gets a 408 for a write that is done, or a 500 where they are no UTF-8.
_PRIVACY_RULES = (
    "    http-request deny deny_status 404 if { path,url_dec -m beg /-/ }\n"
    "    http-request del-header X-Request-Timeout-Seconds\n"
    "    http-request del-header X-Request-Disconnect-Disabled\n"
    "    http-request del-header serve_multiplexed_model_id\n"
    "    http-request del-header X-Request-ID unless"
    " { req.hdr(X-Request-ID) -m reg ^[A-Za-z0-9._-]{1,64}$ }\n"
    # Serve's and ours are the same.
    "    http-response set-header X-Request-ID %[res.hdr(X-Request-ID)]"
    " if { res.hdr_cnt(X-Request-ID) gt 1 }\n"
)
_BELOW_NS = "(/ns/[^/]*)?"
"""Before a route's path, where it names a namespace."""
# Serve reads a body ahead of the application, all of it, unless told not to look for the client's
# going away; the application does that itself while it reads an import.
# So is the body of a request that needs none, which would pile up there.
_STREAM_RULES = (
    "    acl needs_no_body method GET HEAD OPTIONS\n"
    "    http-request set-header X-Request-Disconnect-Disabled ?1"
    f" if {{ path,url_dec -m reg ^{_BELOW_NS}/import$ }}\n"
    "    http-request set-header X-Request-Disconnect-Disabled ?1 if needs_no_body"
    " { req.hdr_val(Content-Length) gt 0 }\n"
    "    http-request set-header X-Request-Disconnect-Disabled ?1 if needs_no_body"
    " { req.hdr(Transfer-Encoding) -m found }\n"
)
# `OPTIONS *` has no path by which Serve would find an application. What uvicorn's parser does not
# know, it answers in words of its own, and a wish for a WebSocket with nothing. No route has PUT:
# what stands for a method that nobody knows gets the 405 of its path.
_ODD_REQUEST_RULES = (
    "    http-request set-uri / if { url -m str * }\n"
    "    http-request deny deny_status 405 if METH_CONNECT\n"
    "    http-request set-method PUT unless"
    " { method GET HEAD POST PUT PATCH DELETE OPTIONS TRACE }\n"
    "    http-request deny deny_status 400 unless { path -m beg / }\n"
    "    http-request del-header Upgrade\n"
    "    http-response deny deny_status 400 if { status 400 } { res.hdr_cnt(X-Request-ID) eq 0 }\n"
)
# A request whose replica died may be sent again if it reads, or if it is a write of memories:
# those carry an id under which the index applies them once.
_RETRY_RULES = (
    "    http-request set-header X-Faiss-Memory-Write-Id %[uuid()]\n"
    f"    acl of_search path_reg ^{_BELOW_NS}/(search|search/batch|timeline)$\n"
    f"    acl safe_to_repeat path_reg ^{_BELOW_NS}/(search|search/batch|timeline|memory/.*)$\n"
    "    acl safe_to_repeat method GET HEAD OPTIONS\n"
    "    http-request disable-l7-retry unless safe_to_repeat\n"
    "    http-request set-var(txn.reads) bool(true) if METH_GET\n"
    "    http-request set-var(txn.reads) bool(true) if of_search\n"
    "    http-after-response set-var-fmt(txn.retries) %rc\n"
    "    http-after-response set-var(txn.answered) bool(true)"
    " if { res.hdr_cnt(X-Request-ID) gt 0 }\n"
    # A write that was sent again and then reached nobody may have been applied the first time.
    '    http-after-response set-status 502 reason "Bad Gateway" if { status 503 }'
    " !{ var(txn.answered) -m bool } !{ var(txn.reads) -m bool }"
    " { var(txn.retries) -m int gt 0 }\n"
    "    http-after-response set-status 503 if { status 502 } { var(txn.reads) -m bool }\n"
)

_PAGES_OF_OUR_OWN = (400, 404, 405, 408)
"""Those that Serve's configuration does not mention."""
_HEADERS_WITHIN_S = 10
"""From the first byte on; also how long a connection may be silent before its first request."""
_CLIENT_IDLE_S = 120
"""Nothing read and nothing sent; an import that pauses is sent its progress each second."""
# HTTP/2 would let one connection have a hundred requests; nobody offers it here.
_CONNECTION_RULES = (
    "    option disable-h2-upgrade\n"
    "    stick-table type ipv6 size 100k expire 10m store conn_cur\n"
    "    tcp-request connection track-sc0 src,ipmask(32,64)\n"
    "    acl of_this_machine src 127.0.0.0/8 ::1\n"
    "    tcp-request connection reject if of_this_machine {{ sc_conn_cur(0) gt {own} }}\n"
    "    tcp-request connection reject if !of_this_machine {{ sc_conn_cur(0) gt {other} }}\n"
)

# A machine that lost its power answers nothing, not even that nobody is there: requests that were
# under way to it would wait for ever. Its kernel is asked whether it lives; how busy the ingress
# is does not matter, nor whether it is draining.
_DEAD_MACHINE_RULES = (
    "    option srvtcpka\n"
    "    srvtcpka-idle 3s\n"
    "    srvtcpka-intvl 1s\n"
    "    srvtcpka-cnt 3\n"
    "    default-server tcp-ut 6s\n"
)


def harden(
    config: str, pages: str, host: str = "127.0.0.1", max_connections: int = MAX_CONNECTIONS
) -> str:
    """Serve's configuration without what strangers could reach, and with `ERROR_PAGES`.

    Args:
        config: as Serve wrote it.
        pages: the directory of the error pages.
        host: IPv4 or IPv6 address, or name, that clients connect to.
        max_connections: of all clients; three quarters of them may be of this machine, where
            everybody has one address, and a quarter of one address elsewhere.
    """
    sections = re.split(r"(?m)^(?=\S)", config)
    kept = [text for text in sections if not text.startswith(_DROPPED_SECTIONS)]
    return "".join(_harden_section(text, pages, host, max_connections) for text in kept)


def _harden_section(section: str, pages: str, host: str, max_connections: int) -> str:
    section = re.sub(r"(?m)^(\s*stats socket \S+) mode 666", r"\1 mode 600", section)
    section = re.sub(r"(?m)^\s*log (?!global).*\n", "", section)
    # On a reused connection HAProxy closes without an answer when the replica has died; `never`
    # alone still keeps one for each client.
    section = re.sub(
        r"(?m)^(\s*)http-reuse always$", r"\1http-reuse never\n\1option http-server-close", section
    )
    section = re.sub(r"(?m)^(\s*errorfile 503) .*$", rf"\1 {pages}/503.http", section)
    section = re.sub(r"(?m)^(\s*errorfile 50[24]) .*$", rf"\1 {pages}/502.http", section)
    section = re.sub(r"(?m)^(\s*)maxconn \d+$", rf"\1maxconn {max_connections}", section)
    if section.startswith("defaults"):
        section = _with_short_patience(section, pages)
    if section.startswith("backend "):
        section = section.replace("\n", f"\n{_DEAD_MACHINE_RULES}", 1)
    if section.startswith("backend default_backend"):
        # A fresh HAProxy knows no replica yet: every route would be unknown.
        section = re.sub(r"(?m)^(\s*http-request) return .*$", r"\1 deny deny_status 503", section)
    if section.startswith("frontend http_frontend"):
        bounds = {"own": max_connections * 3 // 4, "other": max_connections // 4}
        rules = (
            _CONNECTION_RULES.format_map(bounds)
            + _PRIVACY_RULES
            + _ODD_REQUEST_RULES
            + _STREAM_RULES
            + _RETRY_RULES
        )
        address, suffix = (f"[{host}]", " v4v6" * (host == "::")) if ":" in host else (host, "")
        section = re.sub(
            r"(?m)^(\s*bind )\S*(:\d+)(.*\n)",
            lambda bind: f"{bind[1]}{address}{bind[2]}{suffix}{bind[3]}{rules}",
            section,
            count=1,
        )
    return section


def _with_short_patience(defaults: str, pages: str) -> str:
    defaults = re.sub(r"(?m)^\s*timeout (client|http-request) .*\n", "", defaults)
    lines = (
        f"timeout client {_CLIENT_IDLE_S}s",
        f"timeout http-request {_HEADERS_WITHIN_S}s",
        *(f"errorfile {status} {pages}/{status}.http" for status in _PAGES_OF_OUR_OWN),
    )
    return defaults + "".join(f"    {line}\n" for line in lines)


def _possible_connections(wanted: int) -> int:
    """As many as the limit on open files allows: each needs one of its own and one behind it."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return wanted if most == resource.RLIM_INFINITY else min(wanted, (most - _OTHER_FILES) // 2)


def _die_with_parent(parent: int) -> None:
    """Have the kernel kill this process, and HAProxy after it, when the manager ends."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the manager is gone")


def main(argv: list[str]) -> None:
    """Rewrite the file that `-f` names, then become HAProxy."""
    parent = os.getppid()
    host, binary, *arguments = argv
    if "-f" in arguments:
        path = arguments[arguments.index("-f") + 1]
        pages = os.path.dirname(path)  # noqa: PTH120
        for name, page in ERROR_PAGES.items():
            with open(os.path.join(pages, name), "w", newline="") as file:  # noqa: PTH118, PTH123
                file.write(page)
        with open(path) as file:  # noqa: PTH123
            config = harden(file.read(), pages, host, _possible_connections(MAX_CONNECTIONS))
        with open(path, "w") as file:  # noqa: PTH123
            file.write(config)
    _die_with_parent(parent)
    os.execv(binary, [binary, *arguments])


if __name__ == "__main__":
    main(sys.argv[1:])
