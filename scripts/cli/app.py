"""The commands of `faiss-memory`, and how each of them ends."""

from __future__ import annotations

import importlib
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from scripts.cli.errors import CliError
from scripts.cli.options import PLAIN, namespace_option
from scripts.cli.terminal import complain, say

_HELP = """
Keep and find memories: a client of the FAISS Memory service, and its launcher.

FAISS_URL says where the service is (http://localhost:8900), FAISS_API_KEY is its key,
FAISS_NAMESPACE whose memories are meant.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 no service answers
or it is still starting, 4 nothing found, 130 interrupted.
"""

COMMANDS = {
    "serve": "launcher.commands:serve",
    "service": "launcher.commands:service",
    "setup": "launcher.commands:setup",
    "status": "cli.memory_commands:status",
    "add": "cli.memory_commands:add",
    "search": "cli.memory_commands:search",
    "timeline": "cli.timeline_command:timeline",
    "list": "cli.memory_commands:list_memories",
    "show": "cli.one_memory:show",
    "update": "cli.one_memory:update",
    "delete": "cli.memory_commands:delete",
    "import": "cli.importing.command:import_memories",
    "export": "cli.exporting:export",
    "build": "cli.importing.file_commands:build",
    "watch": "cli.importing.file_commands:watch",
    "namespaces": "cli.namespace_commands:namespaces",
    "keys": "cli.key_commands:keys",
    "backup": "cli.backup_commands:backup",
    "restore": "cli.backup_commands:restore",
    "verify": "cli.backup_commands:verify",
    "doctor": "cli.backup_commands:doctor",
}
"""Module of `scripts` and function of each, in the order of the help."""


class _Group(TyperGroup):
    """Makes a command when it is asked for: making all of them takes longer than a search."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 (typer's own)
        """Know the names, which typer suggests for one that is misspelt."""
        super().__init__(**settings)
        self.commands = dict.fromkeys(COMMANDS)  # type: ignore[assignment]

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401 (typer exports no context type)
        """Names of the commands."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401 (the same)
        """The command of a name; None when there is none."""
        if cmd_name not in COMMANDS:
            return None
        module, function = COMMANDS[cmd_name].split(":")
        found = getattr(importlib.import_module(f"scripts.{module}"), function)
        if isinstance(found, typer.Typer):
            group: Any = typer.main.get_command(found)
            group.name = cmd_name
            for command in group.commands.values():
                _let_choose_namespace(command)
            return group
        one = typer.Typer(add_completion=False, **PLAIN)
        one.command(cmd_name)(found)
        return _let_choose_namespace(typer.main.get_command(one))

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 (the same)
        """Run a command; what it raises becomes a sentence and an exit code."""
        try:
            return super().invoke(ctx)
        except CliError as exc:
            complain(exc)
            raise typer.Exit(exc.exit_code) from None


def _let_choose_namespace(command: Any) -> Any:  # noqa: ANN401 (the same)
    """Give a command that calls the service the option that says in which namespace."""
    if any(param.name == "url" for param in command.params):
        command.params.append(namespace_option())
    return command


app = typer.Typer(cls=_Group, help=_HELP, no_args_is_help=True, **PLAIN)


def _say_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        say(version("faiss-memory"))
        raise typer.Exit


@app.callback()
def _group(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_say_version, is_eager=True, help="Say which this is."),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        # A memory may hold what the terminal's encoding cannot say.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    app(prog_name="faiss-memory")


if __name__ == "__main__":
    main()
