"""The verbs, in the order in which help lists them. Everything heavy is imported inside them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from penjing.cli import options, read, target, work
from penjing.cli.manners import EXIT_CODES, RESUME, Verbs, manners
from penjing.cli.new import new

app = typer.Typer(
    name="penjing",
    cls=Verbs,
    help="A trained CNN and a hardware budget go in; a smaller, proved, re-measured, exported CNN comes out.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(target.app)
for verb in (work.compress, work.run, new, work.frontier):
    app.command(epilog=EXIT_CODES)(verb)


@app.command(epilog=EXIT_CODES)
def resume(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The --out of what was interrupted or killed.")],
    as_json: options.AsLines = False,
    quiet: options.Quiet = False,
) -> None:
    """Go on with an unfinished run or frontier, by the command that started it, to the same result."""
    with manners(quiet=quiet, lines=as_json, onward=RESUME):
        from penjing.core.errors import ResumeError
        from penjing.publish import read_run

        found, place = read_run(folder), folder.resolve()
        if not found["command"]:
            raise ResumeError(f"The run in {folder} was started from Python; call the same again, and it goes on.")
        try:
            os.chdir(found["folder"])
        except OSError as error:
            raise ResumeError(f"The run was started in {found['folder']}, which is gone: {error.strerror}.") from None
        flags = [flag for flag, wanted in (("--json", as_json), ("--quiet", quiet)) if wanted]
        sys.argv[1:] = [*found["command"], "--out", str(place), *flags]
    app(sys.argv[1:], prog_name="penjing")


for reading in (read.export, read.report, read.explain, read.inspect, read.bench):
    app.command()(reading)
app.command("list")(read.list_)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Show the version and leave.")] = False) -> None:
    if version:
        from penjing import __version__

        typer.echo(f"penjing {__version__}")
        raise typer.Exit()


def main() -> None:
    """Run the command line."""
    app(prog_name="penjing")
