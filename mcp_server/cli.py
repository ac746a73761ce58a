"""The command line beside the stdio bridge: HTTP, install, uninstall."""

from __future__ import annotations

import os
import re
from typing import Annotated, NoReturn

import typer

from mcp_server import identity
from mcp_server.installer.bridge_command import Bridge
from mcp_server.installer.config_file import ConfigError, Edit
from mcp_server.installer.install import Assistant, Scope, plan_install, plan_uninstall
from wire.limits import NAMESPACE

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    help="MCP server of FAISS Memory. Without a command or option it speaks MCP on stdin and "
    "stdout. The service is found by FAISS_URL (http://localhost:8900) and FAISS_API_KEY; "
    "FAISS_NAMESPACE says whose memories are meant.",
)

DryRun = Annotated[bool, typer.Option(help="Show the change as a diff and make none.")]
ScopeOption = Annotated[
    Scope, typer.Option(help="claude-code only: for you everywhere, or .mcp.json of this folder.")
]


@app.callback(invoke_without_command=True)
def serve(
    ctx: typer.Context,
    http: Annotated[bool, typer.Option("--http", help="Serve streamable HTTP at /mcp.")] = False,
    host: Annotated[str, typer.Option(help="Address for --http.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port for --http.", min=1, max=65535)] = 8901,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Serve MCP over stdio, or over HTTP with --http."""
    if ctx.invoked_subcommand is not None:
        return
    if version:
        typer.echo(f"faiss-memory-mcp {identity.version()}")
    elif http:
        from mcp_server.transport.http import serve_http

        try:
            serve_http(host=host, port=port)
        except ValueError as exc:
            _fail(str(exc))
    else:
        from mcp_server.transport.stdio import serve_stdio

        serve_stdio()


@app.command()
def install(assistant: Assistant, scope: ScopeOption = Scope.USER, dry_run: DryRun = False) -> None:
    """Connect an assistant. FAISS_URL, FAISS_API_KEY, FAISS_NAMESPACE are written when set."""
    _refuse_project_scope(assistant, scope)
    namespace = os.environ.get("FAISS_NAMESPACE", "")
    if namespace and not re.fullmatch(NAMESPACE, namespace):
        _fail(f"FAISS_NAMESPACE is {namespace!r}; expected a name like team.a")
    if scope is Scope.PROJECT:
        bridge = Bridge.of_any_machine(namespace)
    else:
        names = ("FAISS_URL", "FAISS_API_KEY", "FAISS_NAMESPACE")
        given = {name: os.environ[name] for name in names if os.environ.get(name)}
        bridge = Bridge.of_this_installation(given)
    try:
        edit = plan_install(assistant, bridge, scope)
    except ConfigError as exc:
        _fail(str(exc))
    done = f"Restart {assistant.value} to use it."
    if assistant is Assistant.OPENCLAW and os.environ.get("FAISS_API_KEY"):
        done += " A skill is no place for a key: set FAISS_API_KEY in OpenClaw's own environment."
    _carry_out(edit, dry_run=dry_run, done=done)


@app.command()
def uninstall(
    assistant: Assistant, scope: ScopeOption = Scope.USER, dry_run: DryRun = False
) -> None:
    """Take an assistant's connection out; memories stay."""
    _refuse_project_scope(assistant, scope)
    try:
        edit = plan_uninstall(assistant, scope)
    except ConfigError as exc:
        _fail(str(exc))
    _carry_out(edit, dry_run=dry_run, done="Removed.")


def _refuse_project_scope(assistant: Assistant, scope: Scope) -> None:
    if scope is Scope.PROJECT and assistant is not Assistant.CLAUDE_CODE:
        _fail("--scope project is for claude-code only")


def _carry_out(edit: Edit, *, dry_run: bool, done: str) -> None:
    if not edit.changes:
        typer.echo(f"{edit.path}: nothing to change.")
        return
    if dry_run:
        key = os.environ.get("FAISS_API_KEY")
        typer.echo(edit.diff().replace(key, "***") if key else edit.diff(), nl=False)
        return
    try:
        backup = edit.apply()
    except (ConfigError, OSError) as exc:
        _fail(str(exc))
    typer.echo(f"Changed {edit.path}" + (f" (as it was: {backup})" if backup else ""))
    typer.echo(done)


def _fail(message: str) -> NoReturn:
    typer.echo(f"faiss-memory-mcp: {message}", err=True)
    raise typer.Exit(1)
