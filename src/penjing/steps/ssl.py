"""Structured sparsity learning: a group lasso empties filters, channels, kernels and blocks; what is empty goes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from torch import nn

from penjing.allocators.problem import Problem
from penjing.core.errors import PlanError
from penjing.core.random import derive
from penjing.core.registry import build, register
from penjing.core.types import Plan, Site
from penjing.graph.gates import closed
from penjing.graph.graph import Graph
from penjing.graph.groups import KINDS, Groups, Tensors, groups_of
from penjing.graph.trace import trace
from penjing.rewrites.weights import weights
from penjing.steps.choose import at_step
from penjing.steps.filed import file_widths
from penjing.steps.learned import (
    cut_channels,
    gated_blocks,
    gated_sites,
    reachable,
    rescored,
    some_epochs,
    tightened,
    together,
    within,
)
from penjing.steps.price import Pricer, step_of
from penjing.steps.state import Run, State
from penjing.terms.group_lasso import GroupLasso
from penjing.training.loop import fit
from penjing.training.options import Options
from penjing.training.recalibrate import recalibrate as recalibrate_norms
from penjing.training.schedule import learning_rate

Sizes: TypeAlias = Mapping[tuple[str, str], float]
"""The mean norm of the groups at each place before training, by kind and place."""


@register("step")
@dataclass(frozen=True)
class ssl:  # noqa: N801  (registered under its own name)
    """Empty whole structures by a group lasso and remove them: structured sparsity learning.

    ``groups`` names what may become zero as a whole: ``filters`` (with bias and batch norm), ``channels`` (the weights
    that read one), ``shapes`` (one place of a kernel in all filters), ``depth`` (residual blocks). After each step of
    ``epochs`` epochs every group moves towards zero by lr times ``penalty``, times the root of its size if ``sized``.
    Channels of which the filters or the readers are zero go, physically, and so do blocks; zeros of ``shapes`` are
    stored, held and reported as sparse weights, no kernel becomes smaller. Batch norm is recalibrated on ``images``
    calibration pictures. Train afterwards. ``terms`` join the loss: by default soft_targets, or outputs where
    pictures have no class; ``()`` is the paper's cross-entropy alone.

    Without a budget the penalty decides what goes; a group moves by ``penalty`` times the sum of the learning rates,
    which is about half of ``lr`` times the number of steps. Under a budget, of whatever cost, it decides the order:
    units that have lost most of their size become zero as fast as a bound wants that falls from the whole network's
    cost to the budget in the middle half of the training. The step keeps what it predicts; it measures no exported
    file.

    Raises: PlanError naming an option that cannot be; Infeasible when the budget cannot be met.
    Paper: Wen, Wu, Wang, Chen, Li, Learning Structured Sparsity in Deep Neural Networks, NIPS 2016, sections 3.1, 3.2.
    Differs: proximal steps, kind by kind, in place of the gradient and a threshold; coupled filters are one group, and
    batch norm's scale and shift belong to it, in which a filter's size would hide; a site's last units are spared.
    """

    epochs: float = 20.0
    groups: tuple[Literal["filters", "channels", "shapes", "depth"], ...] = ("filters", "channels")
    penalty: float = 0.1
    sized: bool = False
    lr: float = 1e-2
    weight_decay: float = 5e-4
    batch: int = 128
    images: int = 1024
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    budget: Mapping[str, Any] | str | None = None
    terms: tuple[Any, ...] | None = None
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: PlanError naming the option.
        """
        for name in ("epochs", "penalty", "lr"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise PlanError(f"ssl: {name} must be a number above 0; got {value}.")
        if not self.groups or not set(self.groups) <= set(KINDS):
            raise PlanError(f"ssl: groups are some of {', '.join(KINDS)}; got {list(self.groups)}.")
        for name in ("images", "batch"):
            if getattr(self, name) < 1:
                raise PlanError(f"ssl: {name} must be 1 or more; got {getattr(self, name)}.")

    def __call__(self, state: State, run: Run) -> State:
        """Return the state with the network without its empty structures.

        Raises: Infeasible when the budget cannot be met; PlanError when there is no group.
        """
        data = state.data_for("ssl")
        with run.stage("ssl") as said:
            graph = trace(state.model, *state.example)
            pricer = Pricer(graph, state, run, self.budget)
            model = state.copy_model()
            groups, sites = self._groups(graph, model, pricer)
            problem = reachable(sites, pricer, run)
            split, times = some_epochs(data, self.epochs, derive(run.seed, "ssl"))
            recipe = Options(
                epochs=times, lr=self.lr, batch=self.batch, weight_decay=self.weight_decay, precision=self.precision
            )
            steps = recipe.steps(len(split)) * times
            parameters = dict(model.named_parameters(remove_duplicate=False))
            sizes = {(one.kind, one.where): max(float(one.norms(parameters).mean()), 1e-30) for one in groups}
            lasso = GroupLasso(
                groups, self.penalty, lambda step: learning_rate(step, steps, recipe.lr, recipe.warmup), self.sized,
                steps, (lambda now, done: _emptied(problem, groups, sizes, now, done)) if problem.bounds else None,
            )  # fmt: skip
            taught = ("soft_targets" if data.labelled else "outputs",)
            terms = [build("term", term) for term in (taught if self.terms is None else self.terms)]
            fit(
                model, split, None, recipe, terms=[lasso, *terms], seed=derive(run.seed, "ssl/train"),
                teacher=state.original, checkpoint=run.checkpoint(),
            )  # fmt: skip
            plan = within(_scored(problem, groups, sizes, parameters))
            smaller = cut_channels(
                model, graph, plan, run, ["channels", *(["layers"] if "depth" in self.groups else [])]
            )
            recalibrate_norms(smaller, data.calibration(self.images, run.seed, size=128))
            left = self._sparse(smaller, state, run) if "shapes" in self.groups else Plan()
            facts = _counted(groups, parameters)
            run.note("ssl", facts)
            said.append(", ".join(f"{empty} of {count} {kind} empty" for kind, (empty, count) in facts.items()))
        return state.with_model(smaller, *[one for one in (plan, left) if len(one)])

    def _groups(self, graph: Graph, model: nn.Module, pricer: Pricer) -> tuple[list[Groups], list[Site]]:
        """Return all groups, small ones first, and the sites that they can empty.

        Raises: PlanError when there is none, or a budget that they cannot move.
        """
        sites: list[Site] = []
        if {"filters", "channels"} & set(self.groups):
            found = gated_sites("ssl", graph, self.include, self.exclude)
            sites = at_step(found, step_of(None, ["channels"], pricer))
        blocks = gated_blocks(graph, graph.blocks, self.include, self.exclude) if "depth" in self.groups else []
        parameters = dict(model.named_parameters(remove_duplicate=False))
        names = [block.name for block in blocks]
        groups = [one for kind in KINDS if kind in self.groups
                  for one in groups_of(graph, kind, sites, names, parameters)]  # fmt: skip
        if not groups:
            raise PlanError(f"ssl: the network has none of {', '.join(self.groups)}; see penjing inspect.")
        if pricer.bounds and not (sites or blocks):
            raise PlanError("ssl: a budget needs filters, channels or depth among groups; shapes removes nothing.")
        return groups, together(graph, sites, blocks)

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
        norms = one.norms(parameters)
        empty, count = found.get(one.kind, (0, 0))
        found[one.kind] = (empty + int((norms == 0).sum()), count + len(norms))
    return found
