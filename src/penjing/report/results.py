"""The results of a finished run as checked, frozen values: everything a report may say comes from here.

The JSON that a run leaves behind is read once, by ``read``; a file that lacks something is refused there, with the
name of what is missing, so that no other file of this package has to look twice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from penjing.core.errors import RecipeError
from penjing.report.leaving import Leaving
from penjing.report.ratio import Ratio
from penjing.report.sensed import Foretold, Sensitivity
from penjing.report.spent import Spending
from penjing.steps.few_bits import FewBits
from penjing.steps.lightened import Lightened

ORIGINAL = "original"
RESULT = "penjing"


@dataclass(frozen=True)
class Latency:
    """How long one run of the exported file takes; ``low_ms`` to ``high_ms`` is the spread, ``best_ms`` the least."""

    median_ms: float
    low_ms: float
    high_ms: float
    threads: int
    batch: int
    runtime: str
    best_ms: float | None = None


@dataclass(frozen=True)
class Row:
    """One network: the original, the result or a reference. ``accuracy`` is in percent, ``size`` in bytes.

    ``predicted_ms`` is what the file of a measured target says of ``latency.best_ms``; ``bundle`` are the bytes of the
    bundle on disk, and ``packed`` those of the weights in memory when it runs, where any is packed. A run without data
    tests nothing: then ``of`` is 0 and there is no accuracy.
    """

    name: str
    params: float
    macs: float
    size: float
    wrong: int
    of: int
    accuracy: float = math.nan
    error: float = math.nan
    memory: float | None = None
    nonzero: float | None = None
    latency: Latency | None = None
    ratio: Ratio | None = None
    predicted_ms: float | None = None
    bundle: float | None = None
    packed: float | None = None
    note: str = ""

    @property
    def tested(self) -> bool:
        """Whether the network saw test pictures."""
        return self.of > 0


@dataclass(frozen=True)
class Bounded:
    """One line of the budget: what was asked, the limit it means in ``unit``, and what was measured ``where``."""

    cost: str
    asked: str
    limit: float
    unit: str
    measured: float
    met: bool
    where: str

    @property
    def kept(self) -> bool:
        """Whether the run says so and the numbers agree."""
        return self.met and self.measured <= self.limit + 1e-6 * abs(self.limit)


@dataclass(frozen=True)
class Width:
    """A site and how many of its units there were and are; of ranks, the relative ``error`` of the layer's weights."""

    site: str
    kind: str
    before: int
    after: int
    error: float | None = None


@dataclass(frozen=True)
class Pinned:
    """What could not be made smaller, and why."""

    where: str
    units: int
    why: str
    line: str = ""


@dataclass(frozen=True)
class Certificate:
    """Two forms of one network were compared: the largest difference seen and the one allowed."""

    name: str
    difference: float
    tolerance: float
    ok: bool
    detail: str = ""


@dataclass(frozen=True)
class Epoch:
    """One pass over the training data; accuracies in percent."""

    epoch: float
    lr: float
    loss: float | None
    val_accuracy: float | None
    val_loss: float | None
    seconds: float


@dataclass(frozen=True)
class Stage:
    """One step of the run and how long it took."""

    name: str
    seconds: float
    detail: str = ""


@dataclass(frozen=True)
class Round:
    """What the plan promised and what its exported file measured, by cost."""

    round: int
    predicted: dict[str, float]
    measured: dict[str, float]
    detail: str = ""


@dataclass(frozen=True)
class Lowest:
    """What the smallest plan would cost, in steps of so many channels."""

    step: int
    costs: dict[str, float]


@dataclass(frozen=True)
class Validation:
    """Accuracy in percent on pictures kept back from training."""

    before: float
    after: float


@dataclass(frozen=True)
class Machine:
    """Where the run took place; ``threads`` are those of the runtime whose latency is measured."""

    cpu: str
    cores: int
    threads: int
    training_threads: int | None = None
    system: str = ""


@dataclass(frozen=True)
class Pictures:
    """How many pictures there were to learn from and to choose by."""

    name: str
    train: int
    val: int
    classes: int | None = None


@dataclass(frozen=True)
class GoneOn:
    """When a run that had been stopped went on, and after which step."""

    at: str
    after: str = ""


@dataclass(frozen=True)
class Trial:
    """One candidate of a search: what it cost, what the search made small, and whether it kept all bounds, if known."""

    step: str
    trial: int
    costs: dict[str, float | None]
    minimise: str = ""
    met: bool | None = None

    @property
    def value(self) -> float | None:
        """What the search made small, where it is known."""
        found = self.costs.get(self.minimise)
        return found if found is not None and math.isfinite(found) else None


@dataclass(frozen=True)
class Search:
    """What a search says of itself; a search that was cut short may leave things out.

    ``losses`` say, the best first, how well losses foretold so many plans.
    """

    step: str
    allocator: str = ""
    minimise: str = ""
    unit: str = ""
    trials: int | None = None
    plans: int | None = None
    best: Any = None
    evaluated: int | None = None
    seconds: float | None = None
    stopped: Any = None
    foretold: int | None = None
    losses: list[Foretold] = field(default_factory=list)

    @property
    def tried(self) -> int | None:
        """How many candidates it tried, each counted once where that is known."""
        return self.trials if self.plans is None else self.plans


@dataclass(frozen=True)
class Results:
    """Everything known about a finished run."""

    penjing: str
    name: str
    created: str
    seconds: float
    command: str
    seed: int
    versions: dict[str, Any]
    machine: Machine
    budget: list[Bounded]
    rows: list[Row]
    test_reads: int
    sites: list[Width]
    pinned: list[Pinned]
    certificates: list[Certificate]
    training: list[Epoch]
    stages: list[Stage]
    files: dict[str, float]
    recipe: str = ""
    validation: Validation | None = None
    diagnostics: list[dict[str, Any]] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)
    lowest: list[Lowest] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    steps: list[Any] = field(default_factory=list)
    trained: list[dict[str, Any]] = field(default_factory=list)
    data: Pictures | None = None
    resumed: list[GoneOn] = field(default_factory=list)
    trials: list[Trial] = field(default_factory=list)
    searches: list[Search] = field(default_factory=list)
    spending: Spending | None = None
    sensitivity: list[Sensitivity] = field(default_factory=list)
    few_bits: list[FewBits] = field(default_factory=list)
    lightened: list[Lightened] = field(default_factory=list)
    exits: list[Leaving] = field(default_factory=list)

    def row(self, name: str) -> Row:
        """Return the row of this name."""
        return next(row for row in self.rows if row.name == name)

    @property
    def original(self) -> Row:
        """The network as it came."""
        return self.row(ORIGINAL)

    @property
    def result(self) -> Row:
        """The network as it leaves."""
        return self.row(RESULT)

    @property
    def references(self) -> list[Row]:
        """The rows the result is held against, besides the original."""
        return [row for row in self.rows if row.name not in (ORIGINAL, RESULT)]

    @property
    def met(self) -> bool:
        """Whether every bound of the budget is kept."""
        return all(bound.kept for bound in self.budget)

    @property
    def tested(self) -> bool:
        """Whether all networks saw test pictures."""
        return all(row.tested for row in self.rows)


def read(results: Mapping[str, Any]) -> Results:
    """Check the results of a run and return them as values.

    Raises: RecipeError naming the first key that is missing or has a value that cannot be right.
    """
    from pydantic import TypeAdapter, ValidationError

    if not isinstance(results, Mapping):
        raise RecipeError(f"The results of a run are key: value pairs; got {type(results).__name__}.")
    try:
        checked = TypeAdapter(Results).validate_python(_without_tests(_printable(results)))
    except ValidationError as error:
        raise RecipeError(_explain(error.errors())) from None
    names = [row.name for row in checked.rows]
    for name in (ORIGINAL, RESULT):
        if names.count(name) != 1:
            raise RecipeError(
                f"A report needs exactly one row named {name!r}; the results have {names.count(name)} among the rows "
                f"{names}. Was the run finished?"
            )
    for row in checked.rows:
        _check(row)
    return checked


def _without_tests(results: dict[str, Any]) -> dict[str, Any]:
    """Leave out the accuracy of networks that saw no test pictures, which the file has as null; others need one."""
    rows = results.get("rows")
    for i, row in enumerate(rows if isinstance(rows, list) else ()):
        for key in ("accuracy", "error") if isinstance(row, dict) else ():
            if row.get("of") == 0:
                row.pop(key, None)
            elif key not in row:
                raise RecipeError(f"The results have no rows[{i}].{key}, which a report needs. Was the run finished?")
    return results


def _check(row: Row) -> None:
    where = f"Row {row.name!r} of the results"
    if not row.tested and math.isnan(row.accuracy) and row.wrong == 0:
        _check_counts(row, where)
        return
    if not 0 <= row.wrong <= row.of or row.of < 1:
        raise RecipeError(f"{where} has {row.wrong} of {row.of} test pictures wrong.")
    counted = 100 * (1 - row.wrong / row.of)
    # A row may be the mean of several networks, whose count of pictures is rounded; a fraction is told from a percent.
    if not abs(row.accuracy - counted) <= 0.5 + 100 / row.of:
        raise RecipeError(
            f"{where} has accuracy {row.accuracy:g} %, but {row.wrong} of {row.of} wrong make {counted:.2f} %."
        )
    _check_counts(row, where)


def _check_counts(row: Row, where: str) -> None:
    for name in ("params", "macs", "size", "memory", "nonzero", "bundle", "packed"):
        value = getattr(row, name)
        if value is not None and not 0 <= value < math.inf:
            raise RecipeError(f"{where} has {name} = {value:g}; it must be a count.")
    for name, measured in (("latency", row.latency), ("ratio", row.ratio)):
        for key, value in asdict(measured).items() if measured is not None else ():
            if isinstance(value, float) and not 0 < value < math.inf:
                raise RecipeError(f"{where} has {name}.{key} = {value:g}; it must be positive.")


def _explain(faults: list[Any]) -> str:
    first, more = faults[0], len(faults) - 1
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).removeprefix(".")
    also = f" ({more} more fault{'s' * (more > 1)} like this.)" if more else ""
    if first["type"] == "missing":
        return f"The results have no {path}, which a report needs. Was the run finished?{also}"
    got = repr(first["input"]) if len(repr(first["input"])) <= 60 else f"{repr(first['input'])[:57]}..."
    return f"The results have {path} = {got}, which cannot be right: {first['msg']}.{also}"


def _printable(value: Any) -> Any:
    """Copy JSON data, replacing what no page or terminal can show: control characters and lone surrogates."""
    if isinstance(value, str):
        encodable = value.encode("utf-8", "replace").decode("utf-8")
        return "".join(c if c.isprintable() or c in "\n\t" else " " for c in encodable)
    if isinstance(value, Mapping):
        return {_printable(str(key)): _printable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_printable(item) for item in value]
    return value
