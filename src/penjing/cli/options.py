"""Options that verbs share; those of a recipe's keys are made from the recipe itself."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

import typer

from penjing.cli import completion
from penjing.core.errors import RecipeError
from penjing.recipe import Settable, changes, keys

Verb = TypeVar("Verb", bound=Callable[..., Any])

KEYS: Mapping[str, Settable] = {one.flag: one for one in keys()}
"""Every key of a recipe that has a flag, by the flag's name."""


def _number(text: str) -> int | float:
    return int(text) if text.strip().isdecimal() else float(text)


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


class Spelling(NamedTuple):
    """How a value is written on a command line: what typer reads, what the help shows, what makes a value of a text."""

    type: type
    metavar: str | None = None
    read: Callable[[str], Any] = str


SPELLINGS: Mapping[Any, Spelling] = {
    int: Spelling(int),
    int | None: Spelling(int),
    Path | None: Spelling(Path),
    int | float: Spelling(str, "NUMBER", _number),
    float | None: Spelling(float),
    str | None: Spelling(str),
    Mapping[str, Any] | str: Spelling(str, "COST=BOUND,..."),
    tuple[float, ...] | None: Spelling(str, "NUMBER,...", _numbers),
}
"""Spellings by the type of a key; all others are text."""


def _of(name: str, **more: Any) -> Any:
    """Return the option of a recipe's key, for a verb that has no recipe."""
    one = KEYS[name]
    return typer.Option(help=one.key.help, min=one.key.least, metavar=SPELLINGS[one.type].metavar, **more)


Model = Annotated[str, typer.Argument(metavar="MODEL", help=KEYS["model"].key.help, autocompletion=completion.networks)]
Data = Annotated[str, typer.Argument(metavar="DATA", help=KEYS["data"].key.help, autocompletion=completion.data)]
Weights = Annotated[Path | None, _of("weights")]
Seed = Annotated[int, _of("seed")]
Threads = Annotated[int, _of("threads")]
Batch = Annotated[int, _of("batch")]
Runtime = Annotated[
    str,
    typer.Option(help="Where to measure: see penjing list runtimes.", autocompletion=completion.registered("runtime")),
]
Precision = Annotated[
    str, typer.Option(help="What 32-bit floats are computed in: fp32, or bf16 where the runtime and the CPU do.")
]
Numbers = Annotated[str | None, _of("mean")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set any key, an option of a step by the step's name, such as train.lr=0.01; the value is YAML. "
        "May be given several times.",
    ),
]
Workers = Annotated[
    str,
    typer.Option(help="Who tries plans in a search: a number of processes, ray, ray:4, or a Ray cluster's address."),
]
TrialTimeout = Annotated[float, typer.Option(help="Seconds after which a worker that does not answer is killed.")]
Track = Annotated[
    str | None, typer.Option(metavar="NAME", help="Also tell a tracker of the run: tensorboard or mlflow.")
]
Criterion = Annotated[
    str,
    typer.Option(
        help="What scores channels: see penjing list criteria.", autocompletion=completion.registered("criterion")
    ),
]
Allocator = Annotated[
    str,
    typer.Option(
        help="What shares the budget out: see penjing list allocators.",
        autocompletion=completion.registered("allocator"),
    ),
]
Method = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="A whole published method in place of criterion, allocator, epochs and lr: see penjing list methods; or a "
        "step that chooses what goes, such as rbp, in place of the first two. "
        "With options: '{han: {sparsity: 0.8}}'.",
        autocompletion=completion.registered("method"),
    ),
]
Folder = Annotated[Path, typer.Option("--out", "-o", help="Folder for frontier.json and frontier.svg.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for model.onnx, report.html and results.json.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the same as one JSON document.")]
AsLines = Annotated[bool, typer.Option("--json", help="Print what happens as lines of JSON, the results last.")]
Trust = Annotated[bool, typer.Option("--trust", help="Import the bundle's builder; that runs its code.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the result.")]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Choose and prove the plan and print it; train, export and write nothing."),
]
References = Annotated[
    list[str] | None,
    typer.Option(
        "--reference",
        metavar="NAME",
        help="Add a row to compare with: 'random' (same widths at random) or 'scratch' (same widths, new weights). "
        "May be given several times.",
        autocompletion=completion.registered("reference"),
    ),
]


def keyed(verb: Verb) -> Verb:
    """Give a verb, in place of its ``**given``, a flag for every key of a recipe that it does not take itself."""
    return keyed_but()(verb)


def keyed_but(*left_out: str) -> Callable[[Verb], Verb]:
    """Return what gives a verb such flags, without some."""

    def give(verb: Verb) -> Verb:
        signature = inspect.signature(verb, eval_str=True)
        own = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
        taken = {*left_out, *(one.name for one in own)}
        flags = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_flag(name, one))
            for name, one in KEYS.items()
            if name not in taken
        ]
        verb.__signature__ = signature.replace(parameters=[*own, *flags])  # type: ignore[attr-defined]
        return verb

    return give


def _flag(name: str, one: Settable) -> Any:
    spelling = SPELLINGS.get(one.type, Spelling(str))
    option = typer.Option(
        f"--{name.replace('_', '-')}",
        help=one.key.help if one.default is None else f"{one.key.help} Default: {one.default}.",
        min=one.key.least,
        metavar=spelling.metavar,
        autocompletion=completion.OF_KEYS.get(name),
        rich_help_panel="Keys of the recipe",
    )
    return Annotated[spelling.type | None, option]


def read(name: str, text: Any) -> Any:
    """Return what a flag's text means to the recipe's key of its name.

    Raises: RecipeError naming the flag.
    """
    one = KEYS[name]
    try:
        return SPELLINGS.get(one.type, Spelling(str)).read(text) if isinstance(text, str) else text
    except ValueError:
        raise RecipeError(f"--{name} {text!r} is not right. {one.key.help}") from None


def asked_changes(items: Sequence[str] | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys that the flags and ``--set`` set, by their path.

    Raises: RecipeError for what is not key=value, is given twice, or is no value.
    """
    flags = {KEYS[name].path: read(name, value) for name, value in given.items() if value is not None}
    others = changes(items or [])
    for path in others:
        if path in flags:
            flag = next(name for name, one in KEYS.items() if one.path == path)
            raise RecipeError(f"--set {path} says again what {flag} says already; leave one out.")
    return flags | others
