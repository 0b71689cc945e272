"""The verb ``new``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from penjing import recipe as recipes
from penjing.cli import completion, options
from penjing.cli.manners import manners


@options.keyed_but("model", "weights")
def new(
    arch: Annotated[
        str,
        typer.Argument(
            metavar="ARCH",
            help="A network of the zoo that takes a width, such as mobilenet_v2_cifar, or package.module:builder.",
            autocompletion=completion.networks,
        ),
    ],
    budget: Annotated[
        str,
        typer.Option(
            help="Such as latency=5ms,size=1MB; relative bounds are shares of the network of width 1.",
            metavar="COST=BOUND,...",
            autocompletion=completion.budget,
        ),
    ],
    shape: Annotated[
        str | None,
        typer.Option(
            "--input", metavar="CxHxW", help="One picture, such as 3x32x32; by default the data's, or ARCH's."
        ),
    ] = None,
    classes: Annotated[
        int | None, typer.Option(help="How many classes; by default the data's, or ARCH's.", min=1)
    ] = None,
    widths: Annotated[
        str | None, typer.Option(metavar="NUMBER,...", help="Widths to look at, such as 0.25,0.5,0.75,1.")
    ] = None,
    resolutions: Annotated[
        str | None,
        typer.Option(metavar="SIDE,...", help="Sides of pictures to look at as well, such as 128,160,192,224."),
    ] = None,
    epochs: Annotated[int, typer.Option(help="Epochs of training, in the recipe.", min=1)] = recipes.SCRATCH_EPOCHS,
    lr: Annotated[float, typer.Option(help="Peak learning rate, in the recipe.")] = recipes.SCRATCH_LR,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for recipe.yaml, which penjing run takes; needs --data.")
    ] = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
    **given: Any,
) -> None:
    """Find the largest network of a family that meets a budget, by its width and its pictures' side.

    For example: penjing new mobilenet_v2_cifar --budget latency=0.5ms,size=1MB --data pictures --out new
    """
    with manners(quiet=quiet, onward="the same command begins anew"):
        from penjing import new_network, targets
        from penjing.core.errors import RecipeError
        from penjing.core.plain import json_text
        from penjing.data import load

        keys = options.asked_changes(None, given)
        if out is not None and not keys.get("data"):
            raise RecipeError("A recipe needs data to train on: give --data, or leave --out away.")
        how = {name: keys[name] for name in ("seed", "val", "mean", "std", "side") if name in keys}
        data = load(keys["data"], **how) if "data" in keys else None
        asked = {name: keys.get(f"target.{name}") for name in ("precision", "frame_rate")}
        target = targets.find(keys.get("target.name", recipes.Target.name)).at(**asked)
        at = {name: keys.get(f"target.{name}") for name in ("threads", "batch")}
        found = new_network.new(
            arch,
            budget,
            data=data,
            picture=None if shape is None else _whole("--input", shape.replace("x", ",")),
            classes=classes,
            target=target,
            **at,
            widths=None if widths is None else _numbers(widths),
            resolutions=() if resolutions is None else _whole("--resolutions", resolutions),
            seed=keys.get("seed", 0),
        )
        written = None if out is None else new_network.write_recipe(found, out, keys, epochs, lr)
        if as_json:
            typer.echo(json_text({**found.to_json(), "recipe": None if written is None else str(written)}, indent=1))
            return
        typer.echo(str(found))
        if written is not None:
            typer.echo(f"recipe  {written}: penjing run {written} --out RUN")


def _whole(flag: str, text: str) -> list[int]:
    from penjing.core.errors import RecipeError

    numbers = [int(part) if part.strip().isdecimal() else 0 for part in text.split(",")]
    if min(numbers) < 1:
        example = "3x32x32" if flag == "--input" else "128,160"
        raise RecipeError(f"{flag} {text!r} must be positive whole numbers, such as {example}.")
    return numbers


def _numbers(text: str) -> list[float]:
    from penjing.core.errors import RecipeError

    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise RecipeError(f"--widths {text!r} must be numbers, such as 0.25,0.5,0.75,1.") from None
