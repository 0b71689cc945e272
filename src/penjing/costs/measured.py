"""What was measured of a target before, found in its file: times of layers, and runs that correct them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from penjing.core import console
from penjing.core.errors import RecipeError
from penjing.core.protocols import Runtime as Executor
from penjing.core.registry import build
from penjing.costs.checked import entry, mapping, shown, text
from penjing.costs.correction import Correction, learned
from penjing.costs.fit import StaircaseModel
from penjing.costs.seen import Seen
from penjing.exporting.measure import cpu_name
from penjing.targets.runtime import Runtime


@dataclass(frozen=True)
class RunSeen:
    """The networks that one run measured, and which run that was: what of, when, and on which machine.

    ``run`` is a digest to know it by.
    """

    run: str
    name: str
    date: str
    machine: str
    networks: Mapping[str, Seen]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        networks = {name: one.to_dict() for name, one in self.networks.items()}
        return {"run": self.run, "name": self.name, "date": self.date, "machine": self.machine, "networks": networks}

    @classmethod
    def from_dict(cls, where: str, data: Any) -> RunSeen:
        """Return what ``to_dict`` made data of.

        Raises: ValueError naming the key that is wrong.
        """
        names = {key: text(f"{where}.{key}", entry(where, data, key)) for key in ("run", "name", "date", "machine")}
        networks = mapping(f"{where}.networks", entry(where, data, "networks"))
        return cls(
            **names,
            networks={str(name): Seen.from_dict(f"{where}.networks.{name}", one) for name, one in networks.items()},
        )


@dataclass(frozen=True)
class Known:
    """What a target's file holds: the table of layers as it was measured, and the runs that it is held against."""

    table: StaircaseModel
    runs: tuple[RunSeen, ...] = ()

    @cached_property
    def correction(self) -> Correction | None:
        """What the runs teach, None where there are none."""
        return learned([one for run in self.runs for one in run.networks.values()])

    @property
    def corrected(self) -> StaircaseModel:
        """The table as runs have corrected it."""
        return self.table if self.correction is None else self.correction.applied(self.table)

    def predict(self, network: Seen) -> float:
        """Return what a network takes, in ms: by the correction, or else the sum of its layers."""
        return network.total if self.correction is None else self.correction.predict(network)


def known(target: Runtime) -> Known | None:
    """Return what a target's file holds; None where it holds no times.

    Raises: RecipeError naming the file and the key that is wrong.
    """
    data = target.table or {}
    if not {"fit", "layers", "runs"} & set(data):
        return None
    try:
        table = StaircaseModel.from_dict(data, target.batch)
        runs = data.get("runs", [])
        if not isinstance(runs, list):
            raise ValueError(f"runs = {shown(runs)} must be a list")
        return Known(table, tuple(RunSeen.from_dict(f"runs[{i}]", one) for i, one in enumerate(runs)))
    except ValueError as error:
        raise RecipeError(f"{target.file or target.name}: {error}; measure the target anew.") from None


def measured(target: Runtime) -> StaircaseModel | None:
    """Return the times of layers that a target's file holds, as runs have corrected them; None where it holds none.

    Times of another machine or version are taken, with a remark that names both: the machine may be far away.

    Raises: MissingExtra for a runtime that is not installed; RecipeError naming what is wrong with the times.
    """
    found = known(target)
    if found is None:
        return None
    if said := strange(target):
        console.remark(said)
    return found.corrected


def strange(target: Runtime) -> str:
    """Return a sentence that says that a table is of another machine or version than this; nothing where it is not.

    Raises: MissingExtra for a runtime that is not installed.
    """
    table, runtime = target.table or {}, build("runtime", target.runtime)
    executor: Executor = runtime
    now = {"version": f"{target.runtime} {executor.version()}", "cpu": cpu_name()}
    then = {"version": f"{target.runtime} {table.get('version')}", "cpu": str(table.get("cpu"))}
    other = [what for what in now if then[what] != now[what]]
    if not other:
        return ""
    return (
        f"Beware: {target.name} was measured on {' and '.join(then[what] for what in other)}, and this is "
        f"{' and '.join(now[what] for what in other)}; measure it anew by penjing target measure {target.runtime}."
    )
