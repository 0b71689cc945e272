"""What was measured of a target before, found in its file."""

from __future__ import annotations

from penjing.core import console
from penjing.core.protocols import Runtime as Executor
from penjing.core.registry import build
from penjing.costs.fit import StaircaseModel
from penjing.exporting.measure import cpu_name
from penjing.targets.runtime import Runtime


def measured(target: Runtime) -> StaircaseModel | None:
    """Return the times of layers that a target's file holds; None where it holds none.

    Times of another machine or version are taken, with a remark that names both: the machine may be far away.

    Raises: MissingExtra for a runtime that is not installed; PenjingError naming what is wrong with the times.
    """
    table = target.table or {}
    if "fit" not in table and "layers" not in table:
        return None
    model = StaircaseModel.from_dict(table, target.batch)
    runtime: Executor = build("runtime", target.runtime)
    now = {"version": f"{target.runtime} {runtime.version()}", "cpu": cpu_name()}
    then = {"version": f"{target.runtime} {table.get('version')}", "cpu": str(table.get("cpu"))}
    for what in now:
        if then[what] != now[what]:
            console.remark(
                f"Beware: {target.name} was measured on {then[what]}, and this is {now[what]}; measure it anew by "
                f"penjing target measure {target.runtime}."
            )
    return model
