"""The commands of `faiss-memory`, and how each of them ends."""

from __future__ import annotations

import sys
from typing import Any

import typer
from typer.core import TyperGroup

from scripts.cli import (
    backup_commands,
    exporting,
    file_commands,
    import_command,
    memory_commands,
    offline,
)
from scripts.cli.errors import CliError
from scripts.cli.terminal import complain

_HELP = """
Keep and find memories: a client of the FAISS Memory service, and its launcher.

FAISS_URL says where the service is (http://localhost:8900), FAISS_API_KEY is its key.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 no service answers,
4 nothing found, 130 interrupted.
"""


class _Group(TyperGroup):
    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 (typer's own context, which it does not export)
        """Run a command; what it raises becomes a sentence and an exit code."""
        try:
            return super().invoke(ctx)
        except CliError as exc:
            complain(exc)
            raise typer.Exit(exc.exit_code) from None


app = typer.Typer(cls=_Group, help=_HELP, no_args_is_help=True, pretty_exceptions_enable=False)

app.command()(offline.serve)
app.command()(memory_commands.status)
app.command()(memory_commands.add)
app.command()(memory_commands.search)
app.command("list")(memory_commands.list_memories)
app.command()(memory_commands.delete)
app.command("import")(import_command.import_memories)
app.command()(exporting.export)
app.command()(file_commands.build)
app.command()(file_commands.watch)
app.command()(backup_commands.backup)
app.command()(backup_commands.restore)
app.command()(backup_commands.verify)
app.command()(offline.doctor)


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        # A memory may hold what the terminal's encoding cannot say.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    app(prog_name="faiss-memory")


if __name__ == "__main__":
    main()
