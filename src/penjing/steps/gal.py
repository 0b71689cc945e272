"""Generative adversarial learning: close channels and blocks by soft masks while the outputs stay the original's."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from penjing.allocators.problem import Problem
from penjing.core import console
from penjing.core.errors import PlanError
from penjing.core.outputs import answers
from penjing.core.random import stream
from penjing.core.registry import build, register
from penjing.core.sites import Site
from penjing.graph import branches
from penjing.graph.gates import closed, fold
from penjing.graph.graph import Graph
from penjing.graph.trace import trace
from penjing.steps.choose import at_step
from penjing.steps.learned import (
    LOOSE,
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
from penjing.steps.price import Pricer, step_of
from penjing.steps.state import Run, State
from penjing.terms.adversary import Adversary
from penjing.terms.masks import Masks
from penjing.training.recalibrate import recalibrate as recalibrate_norms

STRUCTURES = ("channels", "blocks", "both")


@dataclass(frozen=True, eq=False)
class Masked:
    """What bears a mask: sites of channels and of blocks, and the modules that end the blocks' branches."""

    graph: Graph
    channels: Sequence[Site]
    blocks: Sequence[Site]
    ends: branches.Ends

    @property
    def sites(self) -> list[Site]:
        """All of them, for one plan."""
        return together(self.graph, self.channels, self.blocks)


@register("step")
@dataclass(frozen=True)
class gal(Learner):  # noqa: N801  (registered under its own name)
    """Prune channels and residual blocks by soft masks: generative adversarial learning, which needs no labels.

    Every channel, or every block's branch, or ``"both"`` (``structures``) is multiplied by a mask m ≥ 0 that begins at
    1. Weights learn for ``epochs`` epochs to return what the original returns, by ``data_weight`` times the squared
    distance and by ``adversarial`` times the loss of passing for the original before a critic, which learns beside
    them; with ``reversal`` by the critic's own gradient, turned round and times ``adversarial``, in its place. Masks
    learn by FISTA with an L1 ``penalty``, one step at ``mask_lr`` for every ``every`` steps of the weights. What ends
    at m = 0 goes, physically; the other masks are folded into weights, and batch norm is recalibrated on ``images``
    calibration pictures. Train afterwards. Further ``terms`` may join the loss.

    Without a budget the penalty decides what goes. Under a budget, of whatever cost, it decides the order: the smallest
    masks are closed as fast as a bound wants that falls from the whole network's cost to the budget in the middle half
    of the training. The penalty is lowered then where it would pull the mean of all masks below half the share of units
    that the budget leaves, to which that may fall in the first quarter: a penalty that is too large for a network and
    its number of steps would close all of it. Where a bound must be measured (latency, size), the cut network is
    exported and measured, and cut further by what its masks say, up to ``rounds`` times.

    Raises: PlanError naming an option that cannot be; Infeasible when the budget cannot be met.
    Paper: Lin, Ji, Yan, Zhang, Cao, Ye, Huang, Doermann, Towards Optimal Structured CNN Pruning via Generative
    Adversarial Learning, CVPR 2019.
    Differs: the distance is relative to the size of the outputs, so that penalties mean much the same for all
    networks; masks begin at 1, where the released code draws them from a Gaussian, which closes half of them at once;
    their gradient is the mean over the steps since the last, not that of the last batch; the L1 norm acts in the
    proximal step alone. The paper has no budget.
    """

    structures: Literal["channels", "blocks", "both"] = "both"
    penalty: float = 0.03
    data_weight: float = 1.0
    adversarial: float = 0.1
    reversal: bool = False
    every: int = 2
    mask_lr: float = 0.5
    critic_lr: float = 1e-2
    terms: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: PlanError naming the option.
        """
        self.refuse("penalty", "data_weight", "mask_lr", "critic_lr")
        if not (math.isfinite(self.adversarial) and self.adversarial >= 0):
            raise PlanError(f"gal: adversarial is a weight, 0 or more; got {self.adversarial}.")
        if self.structures not in STRUCTURES:
            raise PlanError(f"gal: structures is one of {', '.join(STRUCTURES)}; got {self.structures!r}.")
        if self.every < 1:
            raise PlanError(f"gal: every must be 1 or more; got {self.every}.")

    def __call__(self, state: State, run: Run) -> State:
        """Return the state with the pruned network.

        Raises: Infeasible when the budget cannot be met; PlanError when nothing may be cut.
        """
        data = state.data_for("gal")
        with run.stage("gal") as said:
            graph = with_ranks_that_pay(trace(state.model, *state.example), self.include, self.exclude)
            pricer = Pricer(graph, state, run, self.budget)
            masked = self._masked(state, graph, pricer)
            sites = masked.sites
            problem = reachable(sites, pricer, run)
            lessons = self.lessons(data, run, 2e-4, self.epochs)
            masks = Masks(
                graph, {site.name: site.size for site in masked.channels}, masked.ends, self.mask_lr, self.penalty,
                self.every, lessons.steps,
                (lambda masks, done: _closed(problem, masks, done)) if problem.bounds else None,
                _falling(problem, run.seed) if problem.bounds else None,
            )  # fmt: skip
            adversary = Adversary(_classes(state), self.data_weight, self.adversarial, self.critic_lr, self.reversal)
            model = state.copy_model()
            lessons.teach(model, [masks, adversary, *(build("term", term) for term in self.terms)], state, run)
            learned = masks.learned()
            fold(model, graph, {site.name: learned[site.name] for site in masked.channels})
            branches.fold(model, masked.ends, learned)
            for site in masked.channels:
                if not bool(learned[site.name].any()):
                    what = f"All masks of {site.name} closed, so that nothing passes it; lower penalty."
                    run.note("remarks", what)
                    console.remark(f"gal: {what}")
            rewrites = ["channels", "layers"] if masked.blocks else ["channels"]
            cut = cut_learned(model, graph, _scored(problem, learned), pricer, run, self.rounds, rewrites)
            recalibrate_norms(cut.model, data.calibration(self.images, run.seed, size=128))
            zero = sum(int((mask == 0).sum()) for mask in learned.values())
            total = sum(mask.numel() for mask in learned.values())
            run.note("gal", {"masks": total, "closed": zero, "sites": len(sites), "cut": len(cut.plan)})
            said.append(f"{zero} of {total} masks closed; {len(cut.plan)} of {len(sites)} sites cut")
        return state.with_model(cut.model, *([cut.plan] if len(cut.plan) else []))

    def _masked(self, state: State, graph: Graph, pricer: Pricer) -> Masked:
        """Return what bears a mask.

        Raises: PlanError when nothing may.
        """
        channels, blocks = [], []
        if self.structures != "blocks":
            found = gated_sites("gal", graph, self.include, self.exclude)
            channels = at_step(found, step_of(None, ["channels"], pricer))
        ends = branches.ends_of(state.model, graph) if self.structures != "channels" else {}
        blocks = gated_blocks(graph, ends, self.include, self.exclude)
        if not channels and not blocks:
            raise PlanError(
                "gal: no residual block that may be left out ends in a normalisation or layer of its own and matches "
                "include; take structures channels, and see penjing inspect."
            )
        return Masked(graph, channels, blocks, {site.name: ends[site.name] for site in blocks})


def _closed(problem: Problem, masks: Mapping[str, Tensor], done: float) -> dict[str, Tensor]:
    """Return the masks with the smallest closed, as the budget wants it by now."""
    kept = {entry.site: entry.kept for entry in within(tightened(_scored(problem, masks), done))}
    return {name: mask * closed(len(mask), kept[name]) if name in kept else mask for name, mask in masks.items()}


def _falling(problem: Problem, seed: int) -> Callable[[float], float]:
    """Return the least mean of all masks by the share of a training that is done.

    It falls to half the share of units that a plan keeps which knows none from another.
    """
    rng = stream(seed, "gal/least")
    blind = within(rescored(problem, {site.name: 0.5 + rng.random(site.size) for site in problem.sites}))
    sizes = {site.name: site.size for site in problem.sites}
    kept = sum({**sizes, **{entry.site: len(entry.kept) for entry in blind if entry.site in sizes}}.values())
    share = kept / sum(sizes.values()) / 2
    return lambda done: 1 - (1 - share) * min(done / LOOSE, 1.0)


def _scored(problem: Problem, masks: Mapping[str, Tensor]) -> Problem:
    return rescored(problem, {site.name: masks[site.name].double().numpy() for site in problem.sites})


def _classes(state: State) -> int:
    args, kwargs = state.example
    with torch.no_grad():
        return answers(state.original(*args, **kwargs))[0].shape[1]
