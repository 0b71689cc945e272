"""``penjing target``: the hardware that networks are made for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from penjing.cli import completion, options
from penjing.cli.manners import manners
from penjing.cli.measure import EPILOG, measure

app = typer.Typer(
    name="target", help="Show the hardware that networks are made for, and check a file of your own.",
    no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip


@app.command("list")
def list_(as_json: options.AsJson = False) -> None:
    """List the targets that penjing brings along."""
    with manners():
        from penjing.core.plain import json_text
        from penjing.targets import find, names

        about = {name: find(name).about for name in names()}
        width = max(map(len, about))
        lines = (f"{name:{width}}  {text}" for name, text in about.items())
        typer.echo(json_text(about, indent=1) if as_json else "\n".join(lines))


@app.command()
def show(
    name: Annotated[
        str, typer.Argument(metavar="NAME|FILE", help="A target's name, or a file.", autocompletion=completion.targets)
    ],
    as_json: options.AsJson = False,
) -> None:
    """Show every number of a target, with its source and whether that was looked up.

    For example: penjing target show eyeriss_v1
    """
    with manners():
        from penjing.core.plain import json_text
        from penjing.targets import describe, find

        target = find(name)
        typer.echo(json_text(describe.told(target), indent=1) if as_json else describe.described(target))


@app.command()
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A target's YAML file.")],
    as_json: options.AsJson = False,
) -> None:
    """Check a target's file: units, keys, missing and unusual numbers, and each number's source.

    For example: penjing target check my_chip.yaml
    """
    with manners():
        from penjing.core.plain import json_text
        from penjing.targets import describe, find

        target = find(file)
        if as_json:
            typer.echo(json_text(describe.told(target), indent=1))
            return
        typer.echo(describe.described(target))
        typer.echo("\n".join(["", f"{file} can be used.", *describe.notes(target)]))


app.command(epilog=EPILOG)(measure)
