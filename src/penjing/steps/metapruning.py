"""MetaPruning: learn to write weights for any widths, judge widths by them, and cut to the best."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from penjing.allocators.problem import Problem
from penjing.core.errors import PlanError
from penjing.core.plan import Plan
from penjing.core.protocols import Draft
from penjing.core.random import derive
from penjing.core.registry import build, register
from penjing.costs.error import error
from penjing.graph.graph import Graph
from penjing.rewrites.channels import channels
from penjing.steps.choose import at_step
from penjing.steps.filed import file_training, tell_epoch
from penjing.steps.price import Pricer, step_of
from penjing.steps.prune import Scored, prune
from penjing.steps.state import Run, State
from penjing.training.loop import fit
from penjing.training.options import Options, check_values
from penjing.training.pruning_net import PruningNet
from penjing.training.recalibrate import recalibrate as recalibrate_norms
from penjing.training.renew import renew
from penjing.training.state import chance

STARTS = ("scratch", "generated", "inherited")


@register("step")
@dataclass(frozen=True)
class metapruning:  # noqa: N801  (registered under its own name)
    """Train a PruningNet, which writes weights for any widths, search the widths it does best with, and cut to them.

    Each convolution's weight comes from two linear layers with ``hidden`` units, which are told the widths around it;
    they are trained for ``epochs`` at a rate of ``lr``, each batch under widths drawn anew, with ``terms`` in the loss.
    Then ``allocator`` searches within the budget, and a plan is judged by the validation error of the network cut by
    it, with weights written for it and batch norm recalibrated on ``recalibrate`` batches: no plan is trained. The
    best is cut physically, and begins from ``start``: ``"scratch"`` draws its weights anew, as the paper does, so that
    a long training must follow; ``"generated"`` takes those that were written; ``"inherited"`` the network's own.
    ``criterion`` ranks the units of a site; ``include`` and ``exclude`` are those of ``prune``.

    Raises: PlanError naming an option that cannot be; Infeasible when the budget cannot be met.
    Paper: Liu, Mu, Zhang, Guo, Yang, Cheng, Sun, MetaPruning: Meta Learning for Automatic Neural Network Channel
    Pruning, ICCV 2019.
    Differs: the original teaches by soft targets; which units a width keeps, a criterion ranks, the paper keeps the
    first; linear layers are shared by all widths, not written; of the net what ``PruningNet`` says, of the search what
    ``evolution`` says.
    """

    epochs: int = 32
    lr: float = 0.01
    batch: int = 128
    hidden: int = 32
    criterion: Any = "l1"
    allocator: Any = "evolution"
    recalibrate: int = 10
    start: Literal["scratch", "generated", "inherited"] = "scratch"
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    budget: Mapping[str, Any] | str | None = None
    terms: tuple[Any, ...] = ("soft_targets",)
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: PlanError or TrainError naming the option.
        """
        for name in ("epochs", "hidden", "batch", "recalibrate"):
            if getattr(self, name) < 1:
                raise PlanError(f"metapruning: {name} must be 1 or more; got {getattr(self, name)}.")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise PlanError(f"metapruning: lr must be a number above 0; got {self.lr}.")
        if self.start not in STARTS:
            raise PlanError(f"metapruning: start is one of {', '.join(STARTS)}; got {self.start!r}.")
        for name in (type(build("term", term)).__name__ for term in self.terms):
            if name in ("hints", "fitnets"):
                raise PlanError(
                    f"metapruning: {name} compares layers, whose weights are written here; take soft_targets."
                )
        check_values(self._recipe)

    @property
    def _recipe(self) -> Options:
        return Options(epochs=self.epochs, lr=self.lr, batch=self.batch, precision=self.precision)

    def __call__(self, state: State, run: Run) -> State:
        """Return the state with the network cut to the widths found.

        Raises: Infeasible when the budget cannot be met; PlanError when nothing may be cut.
        """
        data = state.labelled_for("metapruning")
        cutting = prune(
            criterion=self.criterion, allocator=self.allocator, include=self.include, exclude=self.exclude,
            budget=self.budget,
        )  # fmt: skip
        scored = cutting.score(state, run)
        self._need_room(state, run, scored)
        net = self._trained(state, run, scored)
        judged = error_(images=2048, recalibrate=self.recalibrate, net=net)
        cut, _ = replace(cutting, measure=judged).decide(state, run, scored=scored)
        if self.start == "inherited":
            return state.with_model(cut.model, cut.plan)
        if self.start == "generated":
            model = written_and_cut(net, scored.graph, cut.plan)
            recalibrate_norms(model, data.calibration(1024, run.seed, size=128))
            return state.with_model(model, cut.plan)
        with chance(run.seed, f"{run.at}/scratch", torch.device("cpu")):
            renew(cut.model)
        return state.with_model(cut.model, cut.plan)

    def _need_room(self, state: State, run: Run, scored: Scored) -> None:
        """Refuse, before anything is trained, a budget that no plan meets.

        Raises: Infeasible; PlanError without a budget.
        """
        pricer = Pricer(scored.graph, state, run, self.budget)
        if not pricer.bounds:
            raise PlanError("metapruning needs a budget, such as macs=0.5x, to search within.")
        every = [site for site in scored.sites if site.name in scored.scores]
        sites = at_step(every, step_of(None, ["channels"], pricer))
        problem = Problem("channels", sites, scored.scores, pricer.bounds, pricer, shown=pricer.shown,
                          held_back=pricer.held_back)  # fmt: skip
        least = problem.keep({site.name: site.fewest for site in sites})
        if not problem.fits(least):
            problem.refuse(least)

    def _trained(self, state: State, run: Run, scored: Scored) -> PruningNet:
        """Train the net that writes weights."""
        data = state.labelled_for("metapruning")
        sites = [site for site in scored.sites if site.name in scored.scores]
        orders = {site.name: np.argsort(-scored.scores[site.name], kind="stable") for site in sites}
        with run.stage("pruning net") as said, chance(run.seed, f"{run.at}/net", torch.device("cpu")):
            net = PruningNet(state.model, scored.graph, sites, orders, self.hidden)
            terms = [build("term", term) for term in self.terms]
            told = fit(
                net, data.train, None, self._recipe, terms=terms,
                seed=derive(run.seed, f"{run.at}/train"), teacher=state.teacher,
                on_epoch=lambda row: tell_epoch(row, run, self._recipe.epochs), checkpoint=run.checkpoint(),
            )  # fmt: skip
            file_training(run, told, self._recipe, [repr(term) for term in terms])
            said.append(f"{len(net.generators)} generators, loss {told.rows[-1]['loss']:.4f}")
        return net.eval()


def written_and_cut(net: PruningNet, graph: Graph, plan: Plan) -> nn.Module:
    """Return the network of a plan with the weights that are written for it."""
    kept = plan.of_rewrite("channels")
    model = net.written(kept)
    channels().apply(model, graph, kept)
    return model.eval()


@dataclass(frozen=True)
class error_(error):  # noqa: N801  (what is measured is the error)
    """The error of a plan's network with the weights that ``net`` writes for it.

    Units: %.
    """

    net: PruningNet | None = field(default=None, repr=False, compare=False)

    def _model(self, draft: Draft) -> nn.Module:
        assert self.net is not None
        model = written_and_cut(self.net, draft.graph, draft.plan)
        self._refresh(model)
        return model
