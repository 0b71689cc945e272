"""The shell, a function a verb. Everything heavy is imported inside the verbs."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from penjing.api import Result
    from penjing.data.data import Data

app = typer.Typer(
    name="penjing",
    help="A trained CNN and a hardware budget go in; a smaller, proved, re-measured, exported CNN comes out.",
    epilog="Exit codes: 0 done, 1 budget missed, 2 wrong input, 3 an error of penjing's own, 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Model = Annotated[str, typer.Argument(help="package.module:builder, or a network of the zoo such as resnet56.")]
DataArgument = Annotated[
    str,
    typer.Argument(
        help="Folder of pictures, folder with train.npz and test.npz, 'digits' (or 'digits:3'), "
        "or package.module:function."
    ),
]
Weights = Annotated[Path | None, typer.Option(help="A .safetensors file or a .pt state dict.")]
Seed = Annotated[int, typer.Option(help="One seed, one result.")]
Threads = Annotated[int, typer.Option(help="Threads of the runtime when latency is measured.", min=1)]
Batch = Annotated[int, typer.Option(help="Batch size when latency is measured.", min=1)]
Workers = Annotated[
    str,
    typer.Option(help="Who tries plans in a search: a number of processes, ray, ray:4, or a Ray cluster's address."),
]
TrialTimeout = Annotated[float, typer.Option(help="Seconds after which a worker that does not answer is killed.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for model.onnx, report.html and results.json.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the results as JSON on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the result.")]
References = Annotated[
    list[str] | None,
    typer.Option(
        "--reference", help="Add a row: 'random' (same widths at random), 'scratch' (same widths, new weights)."
    ),
]
Floats = Annotated[str | None, typer.Option(help="One number a channel, such as 0.485,0.456,0.406.")]


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """Turn what users can mend into one sentence and an exit code."""
    from penjing.core.errors import Infeasible, PenjingError

    try:
        yield
        sys.stdout.flush()
    except (typer.Exit, typer.Abort):
        raise
    except BrokenPipeError:  # whoever reads our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
    except Infeasible as error:
        typer.echo(f"penjing: {error}", err=True)
        raise typer.Exit(1) from None
    except PenjingError as error:
        typer.echo(f"penjing: {error}", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        typer.echo("penjing: interrupted; penjing resume FOLDER goes on with a run that had begun.", err=True)
        raise typer.Exit(130) from None
    except OSError as error:
        typer.echo(f"penjing: {error.filename or 'the output'} cannot be used: {error.strerror or error}.", err=True)
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(2) from None
    except Exception as error:
        if os.environ.get("PENJING_TRACEBACK"):
            raise
        what = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}".rstrip(".")
        text = f"penjing: an error of penjing's own, {what}. Please report it; PENJING_TRACEBACK=1 shows where."
        typer.echo(text, err=True)
        raise typer.Exit(3) from None


def _numbers(text: str | None, what: str) -> tuple[float, ...] | None:
    from penjing.core.errors import RecipeError

    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise RecipeError(f"--{what} {text!r} must be numbers separated by commas.") from None


def _load(data: str, seed: int, val: str, mean: str | None, std: str | None) -> Data:
    from penjing.core.errors import RecipeError
    from penjing.data import load

    try:
        share = int(val) if val.strip().isdigit() else float(val)
    except ValueError:
        raise RecipeError(f"--val {val!r} must be a share such as 0.1 or a count such as 500.") from None
    return load(data, seed=seed, val=share, mean=_numbers(mean, "mean"), std=_numbers(std, "std"))


def _tell(result: Result, out: Path, as_json: bool) -> None:
    from penjing.report.table import summary_table

    if as_json:
        typer.echo(json.dumps(result.results, indent=1, default=float))
        return
    typer.echo(summary_table(result.results))
    typer.echo("")
    for name in result.results["files"]:
        typer.echo(f"model   {out / name}")
    typer.echo(f"report  {out / 'report.html'}\nresults {out / 'results.json'}")


def _command() -> str:
    return shlex.join(["penjing", *sys.argv[1:]])


@app.command()
def compress(
    model: Model,
    data: DataArgument,
    budget: Annotated[str, typer.Option(help="Such as latency=0.6x,params=300k,error=+0.5.")],
    weights: Weights = None,
    epochs: Annotated[int, typer.Option(help="Epochs of fine-tuning; 0 for none.", min=0)] = 10,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 0.005,
    criterion: Annotated[str, typer.Option(help="What scores channels: see penjing list criteria.")] = "jacobian",
    allocator: Annotated[str, typer.Option(help="What shares the budget out: see penjing list allocators.")] = "greedy",
    out: Out = Path("penjing-run"),
    seed: Seed = 0,
    threads: Threads = 1,
    batch: Batch = 1,
    val: Annotated[str, typer.Option(help="Share (0.1) or count (500) of training pictures for validation.")] = "0.1",
    mean: Floats = None,
    std: Floats = None,
    reference: References = None,
    workers: Workers = "0",
    trial_timeout: TrialTimeout = 600.0,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Compress MODEL for DATA within a budget: prune, recover, export, measure, report."""
    with _errors():
        from penjing import api, zoo
        from penjing.core import console
        from penjing.steps.price import asked

        asked(budget)
        with console.quiet(quiet):
            network = zoo.build(model, weights)
            result = api.compress(
                network, _load(data, seed, val, mean, std), budget, epochs=epochs, lr=lr, criterion=criterion,
                allocator=allocator, folder=out, seed=seed, threads=threads, batch=batch,
                references=tuple(reference or ()), command=_command(), builder=zoo.builder_of(model),
                started=sys.argv[1:], workers=workers, timeout=trial_timeout,
            )  # fmt: skip
        _tell(result, out, as_json)


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(help="A YAML recipe.")],
    change: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, such as steps.1.train.epochs=3.")
    ] = None,
    out: Out = Path("penjing-run"),
    reference: References = None,
    workers: Workers = "0",
    trial_timeout: TrialTimeout = 600.0,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Run a recipe."""
    with _errors():
        from penjing import api, zoo
        from penjing import recipe as recipes
        from penjing.core import console
        from penjing.core.errors import RecipeError

        changes = {}
        for item in change or []:
            key, equals, value = item.partition("=")
            if not equals:
                raise RecipeError(f"--set {item!r} must be key=value.")
            changes[key] = value
        read = recipes.read(recipe, changes)
        with console.quiet(quiet):
            from penjing.data import load

            network = zoo.build(read.model, _beside(recipe, read.weights))
            data = load(_beside(recipe, read.data), seed=read.seed, val=read.val, mean=read.mean, std=read.std)
            result = api.run(
                network, data, read.steps, read.budget, folder=out, seed=read.seed, references=tuple(reference or ()),
                command=_command(), recipe=recipe.read_text(encoding="utf-8"), builder=zoo.builder_of(read.model),
                started=sys.argv[1:], workers=workers, timeout=trial_timeout,
                threads=int(read.target.get("threads", 1)), batch=int(read.target.get("batch", 1)),
            )  # fmt: skip
        _tell(result, out, as_json)


@app.command()
def resume(folder: Annotated[Path, typer.Argument(help="The --out of a run that was interrupted or killed.")]) -> None:
    """Go on with an unfinished run, by the command that started it."""
    with _errors():
        from penjing.core.errors import ResumeError
        from penjing.publish import read_run

        found, place = read_run(folder), folder.resolve()
        if not found["command"]:
            raise ResumeError(f"The run in {folder} was started from Python; call the same again, and it goes on.")
        try:
            os.chdir(found["folder"])
        except OSError as error:
            raise ResumeError(f"The run was started in {found['folder']}, which is gone: {error.strerror}.") from None
        sys.argv[1:] = [*found["command"], "--out", str(place)]
    app(sys.argv[1:])


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="A run's folder, or a bundle.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The ONNX file to write.")] = Path("model.onnx"),
    builder: Annotated[str, typer.Option(help="package.module:builder, in place of the bundle's own.")] = "",
    trust: Annotated[bool, typer.Option("--trust", help="Import the bundle's builder; that runs its code.")] = False,
) -> None:
    """Write a run's network as ONNX again, from its bundle."""
    with _errors():
        from penjing import compare

        path, difference = compare.export_bundle(folder, out, builder, trust)
        typer.echo(f"{path}: differs from the network by {difference:.1e} at most")


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="A run's folder.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The page; by default the folder's own.")] = None,
) -> None:
    """Write a run's report again, from its results."""
    with _errors():
        from penjing.core.errors import RecipeError
        from penjing.publish import REPORT, RESULTS
        from penjing.report.build import write_report

        try:
            results = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise RecipeError(
                f"{folder / RESULTS} cannot be read: {getattr(error, 'strerror', '') or error}."
            ) from None
        typer.echo(str(write_report(results, out or folder / REPORT)))


def _beside(recipe: Path, name: str | None) -> Any:
    """Take a relative path from the recipe's folder where it lies there; leave other names alone."""
    if name is None:
        return None
    beside = recipe.parent / name
    return str(beside) if beside.exists() else name


@app.command()
def inspect(
    model: Model,
    weights: Weights = None,
    shape: Annotated[str, typer.Option("--input", help="Channels, height and width of one picture.")] = "3,224,224",
    as_json: AsJson = False,
) -> None:
    """Show layers, costs, what may be cut, and what is pinned and why."""
    with _errors():
        import torch

        from penjing import api, zoo
        from penjing.core.errors import RecipeError, TraceError

        sizes = [int(part) if part.strip().isdigit() else 0 for part in shape.split(",")]
        if min(sizes) < 1:
            raise RecipeError(f"--input {shape!r} must be positive whole numbers, such as 3,32,32.")
        network = zoo.build(model, weights)
        try:
            graph = api.inspect(network, torch.randn(2, *sizes))
        except TraceError as error:
            raise TraceError(f"{error} The input was {shape}; give another with --input.") from None
        facts = api.describe(graph)
        typer.echo(json.dumps(facts, indent=1) if as_json else api.described(facts))


@app.command()
def bench(
    files: Annotated[list[Path], typer.Argument(help="ONNX files or runs' folders; the first is compared with.")],
    threads: Threads = 1,
    batch: Batch = 1,
    rounds: Annotated[int, typer.Option(help="How many times the files take turns.", min=5)] = 40,
    data: Annotated[str | None, typer.Option(help="Also tell the accuracy on this data's validation split.")] = None,
    seed: Seed = 0,
    mean: Floats = None,
    std: Floats = None,
    as_json: AsJson = False,
) -> None:
    """Measure files side by side: latency with its spread, size, and, with --data, accuracy."""
    with _errors():
        from penjing import compare

        split = _load(data, seed, "0.1", mean, std).val if data else None
        facts = compare.bench(files, threads=threads, batch=batch, rounds=rounds, split=split)
        typer.echo(json.dumps(facts, indent=1) if as_json else compare.benched(facts))


@app.command("list")
def list_(
    kind: Annotated[str | None, typer.Argument(help="criteria, allocators, costs, rewrites, terms, steps.")] = None,
) -> None:
    """List what can be named in a recipe, with its first line and options."""
    with _errors():
        from penjing.core.errors import RecipeError, did_you_mean
        from penjing.core.registry import HOMES, describe

        plurals = {"criterion": "criteria"} | {k: f"{k}s" for k in HOMES if k != "criterion"}
        wanted = [k for k, plural in plurals.items() if kind in (None, k, plural)]
        if not wanted:
            raise RecipeError(f"There is nothing called {kind!r} to list.{did_you_mean(str(kind), plurals.values())}")
        for one in wanted:
            typer.echo(f"{plurals[one]}:")
            for line in describe(one):
                typer.echo(f"  {line}")


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Show the version and leave.")] = False) -> None:
    if version:
        from penjing import __version__

        typer.echo(f"penjing {__version__}")
        raise typer.Exit()


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
