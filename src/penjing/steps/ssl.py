"""Structured sparsity learning: a group lasso empties filters, channels, kernels and blocks; what is empty goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from torch import nn

from penjing.allocators.problem import Problem
from penjing.core.errors import PlanError
from penjing.core.plan import Plan
from penjing.core.registry import build, register
from penjing.core.sites import Site
from penjing.graph.gates import closed
from penjing.graph.graph import Graph
from penjing.graph.groups import KINDS, Groups, Tensors, groups_of, margins_of
from penjing.graph.trace import trace
from penjing.rewrites.kernels import kernels
from penjing.rewrites.weights import weights
from penjing.steps.choose import at_step
from penjing.steps.filed import file_widths
from penjing.steps.learned import (
    Learner,
    cut_learned,
    gated_blocks,
    gated_sites,
    reachable,
    rescored,
    tightened,
    together,
    with_ranks_that_pay,
    within,
)
from penjing.steps.patterns import chosen
from penjing.steps.price import Pricer, step_of
from penjing.steps.state import Run, State
from penjing.terms.group_lasso import GroupLasso
from penjing.training.recalibrate import recalibrate as recalibrate_norms

Sizes: TypeAlias = Mapping[tuple[str, str], float]
"""The mean norm of the groups at each place before training, by kind and place."""


@register("step")
@dataclass(frozen=True)
class ssl(Learner):  # noqa: N801  (registered under its own name)
    """Empty whole structures by a group lasso and remove them: structured sparsity learning.

    ``groups`` names what may become zero as a whole: ``filters`` (with bias and batch norm), ``channels`` (the weights
    that read one), ``shapes`` (one place of a kernel in all filters), ``depth`` (residual blocks). After each step of
    ``epochs`` epochs every group moves towards zero by lr times ``penalty``, times the root of its size if ``sized``.
    Channels of which the filters or the readers are zero go, physically, and so do blocks. A kernel of which the first
    and the last row, or column, are zero for all channels and filters is cropped; what else of ``shapes`` is zero is
    stored, held and reported as sparse weights. Batch norm is recalibrated on ``images`` calibration pictures. Train
    afterwards. ``terms`` join the loss: by default soft_targets, or outputs where
    pictures have no class; ``()`` is the paper's cross-entropy alone.

    Without a budget the penalty decides what goes; a group moves by ``penalty`` times the sum of the learning rates,
    which is about half of ``lr`` times the number of steps. Under a budget, of whatever cost, it decides the order:
    units that have lost most of their size become zero as fast as a bound wants that falls from the whole network's
    cost to the budget in the middle half of the training, crops of kernels among them. Where a bound must be measured
    (latency, size), the cut network is exported and measured, and cut further by what its units have left, up to
    ``rounds`` times.

    Raises: PlanError naming an option that cannot be; Infeasible when the budget cannot be met.
    Paper: Wen, Wu, Wang, Chen, Li, Learning Structured Sparsity in Deep Neural Networks, NIPS 2016, sections 3.1, 3.2.
    Differs: proximal steps, kind by kind, in place of the gradient and a threshold; coupled filters are one group, and
    batch norm's scale and shift belong to it, in which a filter's size would hide; a site's last units are spared.
    """

    groups: tuple[Literal["filters", "channels", "shapes", "depth"], ...] = ("filters", "channels")
    penalty: float = 0.1
    sized: bool = False
    weight_decay: float = 5e-4
    terms: tuple[Any, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: PlanError naming the option.
        """
        self.refuse("penalty")
        if not self.groups or not set(self.groups) <= set(KINDS):
            raise PlanError(f"ssl: groups are some of {', '.join(KINDS)}; got {list(self.groups)}.")

    def __call__(self, state: State, run: Run) -> State:
        """Return the state with the network without its empty structures.

        Raises: Infeasible when the budget cannot be met; PlanError when there is no group.
        """
        data = state.data_for("ssl")
        with run.stage("ssl") as said:
            graph = with_ranks_that_pay(trace(state.model, *state.example), self.include, self.exclude)
            pricer = Pricer(graph, state, run, self.budget)
            model = state.copy_model()
            groups, sites = self._groups(graph, model, pricer)
            problem = reachable(sites, pricer, run)
            lessons = self.lessons(data, run, self.weight_decay, self.epochs)
            parameters = dict(model.named_parameters(remove_duplicate=False))
            sizes = {(one.kind, one.where): max(float(one.norms(parameters).mean()), 1e-30) for one in groups}
            lasso = GroupLasso(
                [one for one in groups if one.kind in self.groups], self.penalty, lessons.rate, self.sized,
                lessons.steps,
                (lambda now, done: _emptied(problem, groups, sizes, now, done)) if problem.bounds else None,
            )  # fmt: skip
            taught = ("soft_targets" if data.labelled else "outputs",)
            terms = [build("term", term) for term in (taught if self.terms is None else self.terms)]
            lessons.teach(model, [lasso, *terms], state, run)
            scored = _scored(problem, groups, sizes, parameters)
            cut = cut_learned(model, graph, scored, pricer, run, self.rounds, self._rewrites)
            recalibrate_norms(cut.model, data.calibration(self.images, run.seed, size=128))
            left = self._sparse(cut.model, state, run) if "shapes" in self.groups else Plan()
            facts = _counted(groups, parameters)
            run.note("ssl", facts)
            said.append(", ".join(f"{empty} of {count} {kind} empty" for kind, (empty, count) in facts.items()))
        return state.with_model(cut.model, *[plan for plan in (cut.plan, left) if len(plan)])

    @property
    def _rewrites(self) -> list[str]:
        """What may go."""
        return ["channels", *(["kernels"] if "shapes" in self.groups else []),
                *(["layers"] if "depth" in self.groups else [])]  # fmt: skip

    def _groups(self, graph: Graph, model: nn.Module, pricer: Pricer) -> tuple[list[Groups], list[Site]]:
        """Return all groups, small ones first, and the sites that they can empty.

        Raises: PlanError when there is none, or a budget that they cannot move.
        """
        sites: list[Site] = []
        if {"filters", "channels"} & set(self.groups):
            found = gated_sites("ssl", graph, self.include, self.exclude)
            sites = at_step(found, step_of(None, ["channels"], pricer))
        blocks = gated_blocks(graph, graph.blocks, self.include, self.exclude) if "depth" in self.groups else []
        crops = chosen(graph, kernels().find(graph), self.include, self.exclude) if "shapes" in self.groups else []
        parameters = dict(model.named_parameters(remove_duplicate=False))
        names = [block.name for block in blocks]
        groups = [one for kind in KINDS if kind in self.groups
                  for one in groups_of(graph, kind, sites, names, parameters)]  # fmt: skip
        if not groups:
            raise PlanError(f"ssl: the network has none of {', '.join(self.groups)}; see penjing inspect.")
        if pricer.bounds and not (sites or blocks or crops):
            raise PlanError(
                "ssl: a budget needs filters, channels or depth among groups; no kernel may be cropped here."
            )
        return [*groups, *margins_of(crops, parameters)], together(graph, sites, [*blocks, *crops])

    def _sparse(self, model: nn.Module, state: State, run: Run) -> Plan:
        """Return, and write down, where columns of kernels are zero, so that training holds them."""
        graph = trace(model, *state.example, proof=False)
        parameters = dict(model.named_parameters(remove_duplicate=False))
        kept = {}
        for one in groups_of(graph, "shapes", (), (), parameters):
            empty = one.norms(parameters) == 0
            if bool(empty.any()):
                (_, index), = one.pieces  # fmt: skip
                kept[one.where] = np.sort(index[~empty].flatten().numpy())
        plan = Plan.of("weights", kept, [replace(site, least=0) for site in weights().find(graph)])
        file_widths(run, graph, plan, ["weights"])
        return plan


def _scored(problem: Problem, groups: Sequence[Groups], sizes: Sizes, parameters: Tensors) -> Problem:
    """Return the problem with what is left of each unit as score, zero where a group of it is empty."""
    scores = {site.name: np.full(site.size, np.inf) for site in problem.sites}
    for one in groups:
        if one.where in scores and one.kind != "shapes":
            left = one.norms(parameters).double().cpu().numpy() / sizes[one.kind, one.where]
            scores[one.where] = np.minimum(scores[one.where], left)
    return rescored(problem, scores)


def _emptied(problem: Problem, groups: Sequence[Groups], sizes: Sizes, parameters: Tensors, done: float) -> None:
    """Set to zero, in place, the units of which least is left, as the budget wants it by now."""
    kept = {entry.site: entry.kept for entry in within(tightened(_scored(problem, groups, sizes, parameters), done))}
    for one in groups:
        if one.where in kept and one.kind != "shapes":
            one.scale(parameters, closed(len(one.pieces[0][1]), kept[one.where]))


def _counted(groups: Sequence[Groups], parameters: Tensors) -> dict[str, tuple[int, int]]:
    """Return by kind how many groups are empty, and how many there are."""
    found: dict[str, tuple[int, int]] = {}
    for one in groups:
        if one.kind not in KINDS:
            continue
        norms = one.norms(parameters)
        empty, count = found.get(one.kind, (0, 0))
        found[one.kind] = (empty + int((norms == 0).sum()), count + len(norms))
    return found
