"""``penjing target``: the hardware that networks are made for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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
        str, typer.Argument(metavar="NAME|FILE", help="A target's name, or a file.", autocompletion=completion.target)
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
        facts, said = _runs(target)
        if as_json:
            typer.echo(json_text(describe.told(target) | facts, indent=1))
            return
        typer.echo("\n\n".join([describe.described(target), *said]))


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
        facts, said = _runs(target)
        if as_json:
            typer.echo(json_text(describe.told(target) | facts, indent=1))
            return
        typer.echo("\n\n".join([describe.described(target), *said]))
        typer.echo("\n".join(["", f"{file} can be used.", *describe.notes(target)]))


def _runs(target: Any) -> tuple[dict[str, Any], list[str]]:
    """Return what runs say of a measured target, as data and as text; its table is checked on the way."""
    from penjing import correct_target
    from penjing.costs.measured import known, strange
    from penjing.targets.runtime import Runtime

    found = known(target) if isinstance(target, Runtime) else None
    if found is None:
        return {}, []
    said = strange(target)
    lines = [line for line in (correct_target.told(found), said) if line]
    return {"corrected": correct_target.facts(found), "beware": said}, lines


@app.command()
def correct(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A measured target's YAML file.")],
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER", help="Folders of finished runs.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file to write; without: FILE itself.", show_default=False)
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Hold a measured target against what runs measured on it, and let that correct its predictions.

    For example: penjing target correct my_box.yaml run1 run2
    """
    with manners():
        from penjing.core.plain import json_text
        from penjing.correct_target import correct_target, facts, told
        from penjing.publish import read_results

        found, added = correct_target(file, {folder: read_results(folder) for folder in folders}, out)
        if as_json:
            typer.echo(json_text({"file": str(out or file), "added": added, "corrected": facts(found)}, indent=1))
            return
        new = f"New in {out or file}: {', '.join(added)}." if added else f"{file} knows these runs; nothing is new."
        typer.echo(f"{told(found)}\n\n{new}")


app.command(epilog=EPILOG)(measure)
