"""The verb ``target measure``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from penjing.cli import completion, options
from penjing.cli.manners import EXIT_CODES, manners

EPILOG = f"Interrupted, it keeps what it timed beside OUT, and the same command goes on. {EXIT_CODES}"


def measure(
    runtime: Annotated[
        str,
        typer.Argument(
            metavar="RUNTIME",
            help="What to measure on: see penjing list runtimes.",
            autocompletion=completion.registered("runtime"),
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The target's file to write, such as my_box.yaml.")],
    threads: options.Threads = 1,
    batch: options.Batch = 1,
    precision: options.Precision = "fp32",
    seconds: Annotated[float, typer.Option(help="How long layers are timed; whole networks come after.", min=1)] = 120,
    seed: Annotated[int, typer.Option(help="Which layers are drawn.")] = 0,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Time layers of all kinds on this machine and write them, with a fit to them and its error, as a target's file.

    For example: penjing target measure onnxruntime --out my_box.yaml
    """  # fmt: skip
    with manners(quiet=quiet, onward="the same command goes on with what was timed"):
        from penjing.core.plain import json_text
        from penjing.measure_target import Asked, measure_target, told

        facts: dict[str, Any] = measure_target(Asked(runtime, threads, batch, precision, seed), out, seconds)
        typer.echo(json_text({"file": str(out), "error": facts["error"]}, indent=1) if as_json else told(facts, out))
