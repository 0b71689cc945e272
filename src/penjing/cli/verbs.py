"""The verbs, a function each. Everything heavy is imported inside them."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from penjing import recipe as recipes
from penjing.cli import completion, new, options, target
from penjing.cli.manners import EXIT_CODES, RESUME, Verbs, manners
from penjing.core import yaml

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


@app.command(epilog=EXIT_CODES)
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


@app.command(epilog=EXIT_CODES)
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


app.command(epilog=EXIT_CODES)(new.new)


@app.command(epilog=EXIT_CODES)
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


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A run's folder, or a bundle.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The ONNX file to write.")] = Path("model.onnx"),
    builder: Annotated[str, typer.Option(help="package.module:builder, in place of the bundle's own.")] = "",
    trust: options.Trust = False,
) -> None:
    """Write a run's network as ONNX again, from its bundle."""
    with manners():
        from penjing import compare

        made = compare.export_bundle(folder, out, builder, trust)
        typer.echo(f"{made.path}: {made.difference}")
        if made.few_bits:
            typer.echo(f"In few bits, for size and not for speed, are {made.few_bits}.")


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A run's folder.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The page; by default the folder's own.")] = None,
) -> None:
    """Write a run's report again, from its results."""
    with manners():
        from penjing.publish import REPORT, read_results
        from penjing.report.build import write_report

        typer.echo(str(write_report(read_results(folder), out or folder / REPORT)))


@app.command()
def explain(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A run's folder.")],
    as_json: options.AsJson = False,
) -> None:
    """Say why a run's network is not faster: where its time goes, what holds each layer, and what would help."""
    with manners():
        from penjing import api
        from penjing.core.plain import json_text

        found = api.explain(folder)
        typer.echo(json_text(found.to_json(), indent=1) if as_json else str(found))


@app.command()
def inspect(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A zoo name, package.module:builder, a run's folder or a bundle.",
            autocompletion=completion.networks,
        ),
    ],
    weights: options.Weights = None,
    shape: Annotated[
        str | None,
        typer.Option(
            "--input",
            metavar="C,H,W",
            help="Channels, height and width of one picture; by default 3,224,224, or what a bundle says.",
        ),
    ] = None,
    trust: options.Trust = False,
    data: Annotated[
        str | None,
        typer.Option(
            help="Also tell the share of zeros after each ReLU, on validation pictures, which set the input's size.",
            autocompletion=completion.data,
        ),
    ] = None,
    seed: options.Seed = 0,
    mean: options.Numbers = None,
    std: options.Numbers = None,
    as_json: options.AsJson = False,
) -> None:
    """Show layers, costs, what may be cut, and what is pinned and why; with --data, also what ReLUs make zero.

    For example: penjing inspect resnet56 --input 3,32,32
    """
    with manners():
        import torch

        from penjing import api, compare, describe, zoo
        from penjing.core.errors import RecipeError, TraceError
        from penjing.core.plain import json_text
        from penjing.data import load

        folder, example = Path(model), None
        if os.path.isdir(model):  # noqa: PTH112 - a Path fails where the name is too long for a folder
            if weights is not None:
                raise RecipeError(f"--weights fill a network that a builder makes; {model} holds its own.")
            network, example = compare.loaded(folder, trust=trust)
        else:
            network = zoo.build(model, weights)
        if shape is not None or example is None:
            shape = "3,224,224" if shape is None else shape
            sizes = [int(part) if part.strip().isdecimal() else 0 for part in shape.split(",")]
            if min(sizes) < 1:
                raise RecipeError(f"--input {shape!r} must be positive whole numbers, such as 3,32,32.")
            example = (torch.randn(2, *sizes),)
        numbers = {name: options.read(name, text) for name, text in (("mean", mean), ("std", std)) if text is not None}
        read = load(data, seed=seed, **numbers) if data else None
        try:
            graph = api.inspect(network, read.example() if read else example)
        except TraceError as error:
            given = f"of {data}; is it the network's?" if read else f"{shape}; give another with --input."
            raise TraceError(f"{error} The input was {given}") from None
        zeros = describe.count_zeros(network, graph, read, seed=seed) if read else ()
        facts = describe.facts(graph, zeros, describe.methods(network))
        typer.echo(json_text(facts, indent=1) if as_json else describe.told(facts))


@app.command()
def bench(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="ONNX files or runs' folders; the first is compared with.")
    ],
    threads: options.Threads = 1,
    batch: options.Batch = 1,
    runtime: options.Runtime = "onnxruntime",
    precision: options.Precision = "fp32",
    layers: Annotated[bool, typer.Option("--layers", help="Also tell each operator's time, by its layer.")] = False,
    rounds: Annotated[int, typer.Option(help="How many times the files take turns.", min=5)] = 40,
    data: Annotated[
        str | None,
        typer.Option(help="Also tell the accuracy on this data's validation split.", autocompletion=completion.data),
    ] = None,
    seed: options.Seed = 0,
    mean: options.Numbers = None,
    std: options.Numbers = None,
    trust: options.Trust = False,
    as_json: options.AsJson = False,
) -> None:
    """Measure files side by side: latency with its spread, size, and, with --data, accuracy.

    For example: penjing bench original.onnx run/model.onnx
    """
    with manners():
        from penjing import compare
        from penjing.core.plain import json_text
        from penjing.data import load

        numbers = {name: options.read(name, text) for name, text in (("mean", mean), ("std", std)) if text is not None}
        split = load(data, seed=seed, **numbers).val if data else None
        how: dict[str, Any] = {"threads": threads, "batch": batch, "runtime": runtime, "precision": precision}
        facts = compare.bench(files, **how, rounds=rounds, split=split, layers=layers, trust=trust)
        typer.echo(json_text(facts, indent=1) if as_json else compare.benched(facts))


@app.command("list")
def list_(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="KIND|NAME",
            help="A kind, such as criteria, for its entries; a name, such as jacobian, for all about it.",
            autocompletion=completion.listed,
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """List what can be chosen by name: criteria, allocators, costs, rewrites, terms, steps, methods and the others."""
    with manners():
        from penjing.cli import listing
        from penjing.core.plain import json_text
        from penjing.core.registry import PLURALS

        found = listing.find(what)
        if as_json:
            typer.echo(json_text(listing.told(found), indent=1))
        elif what is None or what in {*PLURALS, *PLURALS.values()}:
            typer.echo(listing.overview(found))
        else:
            typer.echo(listing.in_full(found))


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Show the version and leave.")] = False) -> None:
    if version:
        from penjing import __version__

        typer.echo(f"penjing {__version__}")
        raise typer.Exit()


def main() -> None:
    """Run the command line."""
    app(prog_name="penjing")
