"""Structured logs: one JSON object a line, or readable lines on a terminal.

Engine and libraries log through `logging`; both ways end in the same pipeline. What is logged
never holds memory text, a query or a key: callers log names, counts and times.
"""

from __future__ import annotations

import logging
import os
import stat
import sys
from pathlib import Path
from typing import Literal, TextIO

import structlog
from structlog.typing import Processor

from deployments.settings import Settings

_TERMINAL_CHARS = 80
_METHOD_CHARS = 7
_ID_CHARS = 8
_QUIET = ("mcp", "uvicorn.access", "httpx", "botocore", "urllib3")


class PipeHandler(logging.Handler):
    """Writes lines to the launcher's named pipe, and never waits for it.

    A line goes out in one `write`, so lines of several replicas do not mix. When nobody reads
    or the pipe is full the line is dropped: a log must not stop the service.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._fd: int | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, or drop it."""
        try:
            if self._fd is None:
                self._fd = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                if not stat.S_ISFIFO(os.fstat(self._fd).st_mode):
                    raise OSError(f"{self._path} is not a pipe")
            os.write(self._fd, (self.format(record) + "\n").encode("utf-8", "replace"))
        except BlockingIOError:
            return
        except OSError:
            self.close_pipe()

    def close_pipe(self) -> None:
        """Let go of the pipe; the next line opens it again."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def configure_logging(settings: Settings, *, component: str) -> None:
    """Send every log of this process to the launcher's pipe, or to stderr without one.

    Args:
        settings: level, format and pipe.
        component: `ingress`, `embedder`, `index` or `launcher`; part of every line.
    """
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _component_adder(component),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler: logging.Handler
    handler = PipeHandler(settings.log_pipe) if settings.log_pipe else logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(resolve_format(settings.log_format, sys.stderr)),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def resolve_format(
    wanted: Literal["auto", "json", "console"], stream: TextIO
) -> Literal["json", "console"]:
    """What `auto` means for this stream."""
    if wanted == "auto":
        return "console" if stream.isatty() else "json"
    return wanted


def log_settings(settings: Settings) -> None:
    """Log once where the data is and which settings are not the defaults, secrets masked."""
    defaults = Settings.model_construct().masked()
    own = {name: v for name, v in settings.masked().items() if v != defaults[name]}
    shown = {"data_dir": str(settings.data_dir), **own}
    structlog.stdlib.get_logger("settings").info("settings", **shown)


def _component_adder(component: str) -> Processor:
    def add(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event["component"] = component
        return event

    return add


def request_line(event: structlog.typing.EventDict) -> str | None:
    """A request on one line of a terminal, or None for any other event.

    `06:20:47 GET /memory/{memory_id} 200 12.3 ms, embed 2.3, search 1.9, 5 hits 23b79766`: the
    time (UTC) and the beginning of the request's id, by which its answer is known.
    """
    if event["event"] != "request":
        return None
    parts = (("embed_ms", "embed {:.1f}"), ("search_ms", "search {:.1f}"), ("n_hits", "{} hits"))
    shown = [words.format(event[name]) for name, words in parts if name in event]
    time, method = event["timestamp"][11:19], event["method"]
    before = f"{time} {method[:_METHOD_CHARS]} "
    cost = ", ".join([f"{event['total_ms']:.1f} ms", *shown])
    after = f" {event['status']} {cost} {event['request_id'][:_ID_CHARS]}"
    where = event.get("path", event["route"])
    room = max(1, _TERMINAL_CHARS - len(before) - len(after))
    line = before + (where if len(where) <= room else f"{where[: room - 1]}…") + after
    return line[:_TERMINAL_CHARS]


def _with_short_requests(others: structlog.dev.ConsoleRenderer) -> Processor:
    def render(logger: object, method: str, event: structlog.typing.EventDict) -> str:
        return request_line(event) or others(logger, method, event)

    return render


def _renderers(log_format: Literal["json", "console"]) -> list[Processor]:
    if log_format == "console":
        plain = structlog.dev.plain_traceback
        return [
            _with_short_requests(
                structlog.dev.ConsoleRenderer(colors=True, exception_formatter=plain)
            )
        ]
    return [
        # Local variables hold memories and queries.
        structlog.processors.ExceptionRenderer(
            structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        ),
        structlog.processors.JSONRenderer(ensure_ascii=False),
    ]
