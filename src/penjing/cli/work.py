"""The verbs that compress, each in a folder of its own: ``compress``, ``run`` and ``frontier``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from penjing import recipe as recipes
from penjing.cli import completion, options
from penjing.cli.manners import RESUME, manners
from penjing.core import yaml


@options.keyed
def compress(
    model: options.Model,
    data: options.Data,
    budget: Annotated[
        str,
        typer.Option(help=options.KEYS["budget"].key.help, metavar="COST=BOUND,...", autocompletion=completion.budget),
    ],
    epochs: Annotated[int, typer.Option(help="Epochs of fine-tuning; 0 for none.", min=0)] = recipes.EPOCHS,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = recipes.LR,
    criterion: options.Criterion = recipes.CRITERION,
    allocator: options.Allocator = recipes.ALLOCATOR,
    method: options.Method = None,
    change: options.Set = None,
    out: options.Out = Path("penjing-run"),
    reference: options.References = None,
    workers: options.Workers = "0",
    trial_timeout: options.TrialTimeout = 600.0,
    track: options.Track = None,
    dry_run: options.DryRun = False,
    as_json: options.AsLines = False,
    quiet: options.Quiet = False,
    **given: Any,
) -> None:
    """Compress MODEL for DATA within a budget: prune, recover, export, measure, report.

    For example: penjing compress my_nets:build pictures/ --weights w.safetensors --budget latency=0.6x
    """
    with manners(quiet=quiet, lines=as_json and not dry_run, onward="" if dry_run else RESUME):
        asked = options.asked_changes(change, {"model": model, "data": data, "budget": budget, **given})
        chosen = None if method is None else yaml.parse(method, "--method", "a method")
        steps = recipes.usual_steps(epochs, lr, criterion, allocator, chosen)
        recipe = recipes.parse(recipes.changed({"steps": steps}, asked), "compress")
        how = {"references": tuple(reference or ()), "workers": workers, "timeout": trial_timeout}
        _preview(recipe, how, as_json) if dry_run else _run(recipe, {**how, "track": track}, out, as_json)


@options.keyed
def run(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe: a YAML file of keys and steps.")],
    change: options.Set = None,
    out: options.Out = Path("penjing-run"),
    reference: options.References = None,
    workers: options.Workers = "0",
    trial_timeout: options.TrialTimeout = 600.0,
    track: options.Track = None,
    dry_run: options.DryRun = False,
    as_json: options.AsLines = False,
    quiet: options.Quiet = False,
    **given: Any,
) -> None:
    """Run a recipe; flags and --set override what the file says.

    For example: penjing run recipe.yaml --budget macs=0.4x --set train.epochs=3
    """
    with manners(quiet=quiet, lines=as_json and not dry_run, onward="" if dry_run else RESUME):
        read = recipes.read(recipe, options.asked_changes(change, given))
        how = {"references": tuple(reference or ()), "workers": workers, "timeout": trial_timeout}
        text = recipe.read_text(encoding="utf-8")
        _preview(read, how, as_json) if dry_run else _run(read, {**how, "track": track}, out, as_json, text)


@options.keyed_but("budget")
def frontier(
    model: options.Model,
    data: options.Data,
    cost: Annotated[str, typer.Option(help="The cost whose budget is swept: see penjing list costs.")] = "latency",
    shares: Annotated[
        str | None, typer.Option(metavar="SHARE,...", help="Shares of the original's cost, such as 0.8,0.6,0.4.")
    ] = None,
    epochs: Annotated[int, typer.Option(help="Epochs of fine-tuning after each cut; 0 for none.", min=0)] = 0,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = recipes.LR,
    criterion: options.Criterion = recipes.CRITERION,
    allocator: options.Allocator = recipes.ALLOCATOR,
    out: options.Folder = Path("penjing-frontier"),
    workers: options.Workers = "0",
    trial_timeout: options.TrialTimeout = 600.0,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
    **given: Any,
) -> None:
    """Sweep the budget of MODEL on DATA: the curve of a cost against accuracy, as a table, a picture and JSON.

    For example: penjing frontier resnet20 cifar/ --weights w.safetensors --cost latency --shares 0.8,0.6,0.4
    """
    with manners(quiet=quiet, onward=RESUME):
        from penjing import api
        from penjing.core.plain import json_text

        asked = options.asked_changes(None, {"model": model, "data": data, **given})
        recipe = recipes.parse(recipes.changed({"steps": ["prune"]}, asked), "frontier")
        network, read, keys = _built(recipe)
        how: dict[str, Any] = {"epochs": epochs, "lr": lr, "criterion": criterion, "allocator": allocator}
        how |= {} if shares is None else {"shares": shares.split(",")}
        at = {name: keys[name] for name in ("teacher", "seed", "target", "threads", "batch")}
        found = api.frontier(network, read, cost, **how, **at, folder=out, workers=workers, timeout=trial_timeout,
                             started=sys.argv[1:])  # fmt: skip
        typer.echo(json_text(found.to_json(), indent=1) if as_json else str(found))
        if not as_json:
            typer.echo(f"curve   {out / 'frontier.svg'}\nresults {out / 'frontier.json'}")


def _built(recipe: recipes.Recipe) -> tuple[Any, Any, dict[str, Any]]:
    """Return a recipe's network, its data, and its other keys as ``run`` and ``preview`` take them."""
    from penjing import zoo
    from penjing.data import load

    network = zoo.build(recipe.model, recipe.weights, seed=recipe.seed)
    data = load(recipe.data, **{name: getattr(recipe, name) for name in ("seed", "val", "mean", "std", "side")})
    keys = {name: getattr(recipe, name) for name in ("steps", "budget", "seed")}
    keys |= {name: getattr(recipe.target, name) for name in ("threads", "batch")}
    teacher = recipe.teacher and zoo.build(recipe.teacher, recipe.teacher_weights)
    return network, data, {**keys, "target": _target(recipe.target), "teacher": teacher}


def _target(asked: recipes.Target) -> Any:
    """Return the target that a recipe names, as it wants it."""
    from penjing import targets

    return targets.find(asked.name).at(precision=asked.precision, frame_rate=asked.frame_rate)


def _preview(recipe: recipes.Recipe, how: Mapping[str, Any], as_json: bool) -> None:
    """Choose a recipe's plan and print it."""
    from penjing import api
    from penjing.core.plain import json_text

    network, data, keys = _built(recipe)
    preview = api.preview(network, data, **keys, **how)
    typer.echo(json_text(preview.facts, indent=1) if as_json else str(preview))


def _run(recipe: recipes.Recipe, how: Mapping[str, Any], out: Path, as_json: bool, text: str = "") -> None:
    """Run a recipe and print what came of it; ``text`` is the file it stands in."""
    from penjing import api, zoo
    from penjing.core import console
    from penjing.report.table import summary_table

    network, data, keys = _built(recipe)
    command, builder = shlex.join(["penjing", *sys.argv[1:]]), zoo.builder_of(recipe.model)
    told: dict[str, Any] = {"command": command, "recipe": text, "builder": builder, "started": sys.argv[1:]}
    result = api.run(network, data, **keys, **how, folder=out, **told)
    if as_json:
        console.emit("results", folder=str(out), results=result.results)
        return
    typer.echo(f"{summary_table(result.results)}\n")
    for name in result.results["files"]:
        typer.echo(f"model   {out / name}")
    typer.echo(f"report  {out / 'report.html'}\nresults {out / 'results.json'}")
