"""Remove what zeros have left dead: channels that nobody reads, channels that read nothing, empty rims of kernels."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from penjing.core.errors import PlanError
from penjing.core.plan import Plan
from penjing.core.protocols import Rewrite
from penjing.core.registry import register
from penjing.graph.dead import Dead, dead_units, move
from penjing.graph.graph import Graph
from penjing.graph.proof import Certificate, prove, sifted
from penjing.graph.trace import trace
from penjing.rewrites.channels import channels
from penjing.rewrites.kernels import kernels
from penjing.rewrites.perform import perform
from penjing.steps.choose import at_step
from penjing.steps.filed import file_certificate, file_widths
from penjing.steps.patterns import chosen
from penjing.steps.price import ARITHMETIC_STEP
from penjing.steps.state import Run, State

NAME = "without what is dead it returns the same"
"""The name of the certificate."""

REWRITES: dict[str, Rewrite] = {"channels": channels(), "kernels": kernels()}


@register("step")
@dataclass(frozen=True)
class remove_dead:  # noqa: N801  (registered under its own name)
    """Remove, physically, what zero weights have left dead; what the network computes does not change.

    A channel goes that is read by zeros alone, and one whose filters are zero: that is a constant, which moves into the
    bias of what reads it, or into the mean of the batch norm behind that. Where a constant other than zero cannot move,
    as before a convolution with padding, the channel stays. What went leaves others unread, which go in turn. Kernels
    are cropped whose first and last rows, or columns, are zero in all filters. The network that is left is proved to
    return what it returned before. For use after any step that sets weights to zero.

    Widths keep to multiples of ``step``, dead channels filling them up: by default to what the target states, or 4,
    since other widths run slower than uncut ones on common runtimes; ``step: 1`` removes every dead channel but the
    last one of a site. ``include`` and ``exclude`` are patterns of site names.

    Raises: PlanError naming an option that cannot be.
    Paper: Han, Pool, Tran, Dally, Learning both Weights and Connections for Efficient Neural Networks, NIPS 2015,
    section 3.5: neurons without connections in or out.
    """

    step: int | None = None
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: PlanError naming the option.
        """
        if self.step is not None and (isinstance(self.step, bool) or self.step < 1):
            raise PlanError(f"remove_dead: step must be a whole number, 1 or more; got {self.step!r}.")

    def __call__(self, state: State, run: Run) -> State:
        """Return the state with the network without what is dead."""
        with run.stage("remove dead") as said:
            channels_gone = crops = 0
            alone: set[str] = set()
            while True:
                graph = trace(state.model, *state.example)
                dead = dead_units(state.model, graph)
                plan = _but(self._plan(state.model, graph, dead, run), alone)
                if not len(plan):
                    break
                smaller, certificate = _without(state.model, graph, dead, plan)
                if not certificate.ok:
                    alone |= _failing(state.model, graph, dead, plan, run)
                    continue
                file_widths(run, graph, plan, list(REWRITES))
                file_certificate(run, certificate)
                channels_gone += sum(e.size - len(e.kept) for e in plan if e.rewrite == "channels")
                crops += sum(e.rewrite == "kernels" for e in plan)
                state = state.with_model(smaller, plan)
            said.append(f"{channels_gone} channels, {crops} crops of kernels")
            run.note("dead", {"channels": channels_gone, "crops": crops})
        return state

    def _plan(self, model: nn.Module, graph: Graph, dead: Dead, run: Run) -> Plan:
        """Return what stays: what lives, and the first of the dead units that fill a width up."""
        step = self.step or run.target.step or ARITHMETIC_STEP
        wide = at_step(chosen(graph, channels().find(graph), self.include, self.exclude), step)
        kept: dict[str, NDArray[np.int64]] = {}
        for site in wide:
            if site.name in dead.units:
                gone = dead.units[site.name].numpy()
                count = site.allowed(int((~gone).sum()) + site.step - 1)
                kept[site.name] = np.sort(np.argsort(gone, kind="stable")[:count])
        rims = chosen(graph, kernels().find(graph), self.include, self.exclude)
        for site in rims:
            (slot,) = site.slots
            if not bool(model.get_parameter(slot.tensor).detach().flatten()[torch.from_numpy(slot.index)].any()):
                kept[site.name] = np.arange(0)
        every = [*(replace(site, rewrite="channels") for site in wide), *rims]
        return Plan.of("channels", kept, every)


def _but(plan: Plan, names: Collection[str]) -> Plan:
    return Plan(tuple(entry for entry in plan if entry.site not in names))


def _without(model: nn.Module, graph: Graph, dead: Dead, plan: Plan) -> tuple[nn.Module, Certificate]:
    """Return the network without what the plan removes, and the proof that it returns what it returned before."""
    smaller = copy.deepcopy(model)
    stays = {name: torch.zeros(len(gone), dtype=torch.bool) for name, gone in dead.units.items()}
    for name, units in plan.of_rewrite("channels").items():
        stays[name][torch.from_numpy(units)] = True
    move(smaller, dead, {name: stays[name] for name in plan.of_rewrite("channels")})
    perform(smaller, graph, plan, REWRITES)
    return smaller, replace(prove(graph, model, smaller, {}), name=NAME)


def _failing(model: nn.Module, graph: Graph, dead: Dead, plan: Plan, run: Run) -> set[str]:
    """Return the sites that do not go without a difference, and note why they stay."""

    def test(names: Sequence[str]) -> Certificate:
        return _without(model, graph, dead, Plan(tuple(entry for entry in plan if entry.site in names)))[1]

    failures = sifted([[entry.site for entry in plan]], test)
    for name, certificate in failures.items():
        why = f"seems dead, but without it the network {certificate.verdict}"
        run.note("pinned", {"where": name, "units": 1, "line": "", "why": why})
    return set(failures) or {entry.site for entry in plan}
