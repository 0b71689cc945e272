"""References: networks of the result's widths made by other means, to show what choosing and keeping were worth."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from penjing.core import console
from penjing.core.errors import PlanError
from penjing.core.plan import Plan
from penjing.core.protocols import Rewrite, Zeroing
from penjing.core.random import stream
from penjing.core.registry import build, find, register
from penjing.data.data import Data
from penjing.graph.trace import trace
from penjing.rewrites.perform import perform
from penjing.steps.check import check
from penjing.steps.exits import exits
from penjing.steps.export import export
from penjing.steps.gal import gal
from penjing.steps.gmp import gmp
from penjing.steps.grown import KEEPING
from penjing.steps.int8 import int8
from penjing.steps.metapruning import metapruning
from penjing.steps.obc import obc
from penjing.steps.prune import prune
from penjing.steps.rbp import rbp
from penjing.steps.ssl import ssl
from penjing.steps.stands_for import as_cut
from penjing.steps.state import Run, State
from penjing.steps.train import train
from penjing.training.renew import renew, renewer

RATES = {"sgd": 0.1, "adamw": 3e-3}
"""Peak learning rates from new weights, where the rate of a fine-tuning is too small."""

OWN = (gal, gmp, metapruning, obc, rbp, ssl)
"""Steps that choose by other means than a prune."""


def refuse_impossible(names: Sequence[str], original: nn.Module, data: Data | None, steps: Sequence[Any]) -> None:
    """Refuse, before anything starts, references that cannot be made.

    Raises: RecipeError for a name that is unknown; PlanError naming what is in the way.
    """
    for name in names:
        find("reference", name)
    if names and data is None:
        raise PlanError(f"The reference {names[0]!r} needs data to recover on; pass data.")
    if names and any(isinstance(step, exits) for step in steps):
        raise PlanError(
            f"The reference {names[0]!r} is compared at the result's widths, and at which exit pictures leave differs "
            "from network to network: leave it out, or compare before the step exits."
        )
    if "random" in names and (own := next((step for step in steps if isinstance(step, OWN)), None)) is not None:
        raise PlanError(
            f"The reference 'random' draws anew what a prune chose, and {type(own).__name__} chooses as it trains or "
            "refits: leave the reference out, or take 'scratch' where that cuts widths."
        )
    if "scratch" not in names:
        return
    if data is not None and not data.labelled:
        raise PlanError("The reference 'scratch' learns from labels, and these pictures have no class: leave it out.")
    if any(isinstance(step, gmp | obc) or (isinstance(step, prune) and _zeroes(step)) for step in steps):
        raise PlanError(
            "The reference 'scratch' has the result's widths, and zeros leave these as they are: leave it out."
        )
    fixed = [name for name, module in original.named_modules() if _own(module) and renewer(module) is None]
    if fixed:
        module = type(original.get_submodule(fixed[0])).__name__
        raise PlanError(
            f"The reference 'scratch' cannot draw new weights for {fixed[0] or 'the network'} ({module}), which holds "
            "parameters of its own: give the class a method reset_parameters, or leave the reference out."
        )


def _zeroes(step: prune) -> bool:
    return any(isinstance(build("rewrite", name), Zeroing) for name in step.rewrites)


def make(name: str, state: State, run: Run, steps: Sequence[Any]) -> tuple[str, nn.Module, str]:
    """Make a network of the result's widths by other means; return its name, itself, and how it was made."""
    with console.quiet(), console.unheard():
        made: tuple[str, nn.Module, str] = find("reference", name)(state, run, steps)
    return made


@register("reference")
def random(state: State, run: Run, steps: Sequence[Any]) -> tuple[str, nn.Module, str]:
    """Keep the widths, choose the units at random, recover in the same way."""
    if run.noted("grown"):  # the original is trained, and what led there is not done again
        steps = list(itertools.dropwhile(lambda step: type(step) in KEEPING, steps))
    fresh = State(copy.deepcopy(state.original), state.original, state.data, state.example, tutor=state.tutor)
    apart = _apart(run, "random")
    model = _at_random(steps, fresh, state, apart).model
    return "cut at random, same widths", model, _told("same recovery", apart)


@register("reference")
def scratch(state: State, run: Run, steps: Sequence[Any]) -> tuple[str, nn.Module, str]:
    """Keep the widths, draw new weights, train for as many epochs as the steps train."""
    how = _training(steps)
    fresh = State(from_new_weights(state.model, run.seed), state.original, state.data, state.example)
    apart = _apart(run, "scratch")
    model = how(fresh, apart).model
    return "from scratch, same widths", model, _told(f"{how.epochs} epochs from new weights, lr {how.lr:g}", apart)


def _apart(run: Run, name: str) -> Run:
    """Return a run of its own, whose book nobody reads."""
    return replace(run, budget={}, seed=run.seed + 1, book={}, at=f"reference-{name}", made={})


def _told(how: str, apart: Run) -> str:
    """Return how a reference was made, with trainings that Ctrl-C ended: it is then no fair comparison."""
    return ", ".join([how, *apart.noted("stopped")])


def from_new_weights(model: nn.Module, seed: int) -> nn.Module:
    """Return a copy whose parameters are drawn anew, each module's as its own class does it."""
    model = copy.deepcopy(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        renew(model)
    return model


def _own(module: nn.Module) -> bool:
    return next(module.parameters(recurse=False), None) is not None


def _training(steps: Sequence[Any]) -> train:
    """Return how the reference is trained: like the result, for all its epochs at once, without a teacher."""
    trained = [step for step in steps if isinstance(step, train)]
    given = trained[-1] if trained else train(epochs=1)
    last = train(**{f.name: getattr(given, f.name) for f in fields(train)})  # which may do more, as lccl does
    return replace(last, epochs=max(sum(step.epochs for step in trained), 1), lr=RATES[last.optimizer], terms=())


def _at_random(steps: Sequence[Any], fresh: State, state: State, apart: Run) -> State:
    """Take the same steps, but let each cut keep as many units of each site as the result does, drawn at random."""
    for step in steps:
        cut = as_cut(step)
        if isinstance(cut, prune):
            later = state.plans[len(fresh.plans) :]
            like = next(plan for plan in later if set(plan.rewrites()) <= set(cut.rewrites))
            fresh = _drawn(cut.rewrites, like, fresh, apart)
        elif not isinstance(step, export | check | int8):
            fresh = step(fresh, apart)
    return fresh


def _drawn(names: Sequence[str], like: Plan, fresh: State, apart: Run) -> State:
    """Cut as a plan does, with other units; which blocks go is no matter of chance."""
    graph = trace(fresh.model, *fresh.example, proof=False)
    rng = stream(apart.seed, f"reference/random/{len(fresh.plans)}")
    changes: dict[str, Rewrite] = {name: build("rewrite", name) for name in names}
    drawn = (replace(e, kept=np.sort(rng.permutation(e.size)[: len(e.kept)])) for e in like if e.rewrite in changes)
    plan = Plan(tuple(drawn))
    model = fresh.copy_model()
    perform(model, graph, plan, changes)
    return fresh.with_model(model, plan)
