"""The verbs that read what is there: networks, files, what runs left, and what can be chosen by name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from penjing.cli import completion, options
from penjing.cli.manners import manners


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


def report(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A run's folder.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The page; by default the folder's own.")] = None,
) -> None:
    """Write a run's report again, from its results."""
    with manners():
        from penjing.publish import REPORT, read_results
        from penjing.report.build import write_report

        typer.echo(str(write_report(read_results(folder), out or folder / REPORT)))


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
