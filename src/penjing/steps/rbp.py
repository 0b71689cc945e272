"""Recursive Bayesian pruning: learn which channels are noise, site by site, each given what is left of those before."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from penjing.allocators.problem import Problem
from penjing.core.errors import PlanError
from penjing.core.plan import Plan
from penjing.core.registry import build, register
from penjing.core.sites import Site
from penjing.core.units import Floats
from penjing.data.data import Data
from penjing.graph.chains import chains_of
from penjing.graph.evidence import Evidence
from penjing.graph.gates import fold
from penjing.graph.graph import Graph
from penjing.graph.judged import logits_of
from penjing.graph.trace import trace
from penjing.steps.choose import at_step
from penjing.steps.learned import (
    Learner,
    cut_learned,
    cut_proved,
    file_cut,
    gated_sites,
    priced,
    with_ranks_that_pay,
)
from penjing.steps.price import Pricer, step_of
from penjing.steps.settle import Cut, refolded
from penjing.steps.state import Run, State
from penjing.terms.noise import Noise, Start
from penjing.terms.priors import PRIORS, Prior
from penjing.training.recalibrate import recalibrate as recalibrate_norms

FEWEST_UNITS, FEWEST_SHARE = 8, 0.02
"""A site keeps at least so many units, and this share of them."""

COLD = -9.0
"""The log variance of a gate that was not warmed up."""

CERTAIN = 0.9
"""No gate begins further closed than this: many that close together are missed more than each alone, as only learning
tells."""

TINY_MEAN = 1e-2
"""A gate whose mean is no larger than this is closed."""


@dataclass(frozen=True, eq=False)
class Part:
    """What is inferred together, ``now``, and what comes ``later``; ``fisher`` of each unit and KL's weight by site."""

    graph: Graph
    now: Sequence[Site]
    later: Sequence[Site]
    fisher: Mapping[str, Floats]
    positions: Mapping[str, int]
    problem: Problem


@register("step")
@dataclass(frozen=True)
class rbp(Learner):  # noqa: N801  (registered under its own name)
    """Prune channels by the noise that they bear: recursive Bayesian pruning.

    From input to output, one site after the other: its units are multiplied by Gaussian noise θ ~ N(μ, σ²), learned
    for ``epochs`` epochs (a fraction takes that share of the pictures) together with the weights, with β KL added to
    the loss. Units with ln(σ²/μ²) at or above ``threshold`` are noise and go, physically; the means of the others are
    folded into the weights that read them, and batch norm is recalibrated. The next site is inferred given what is
    left. ``recursive=False`` infers all sites at once, for ``epochs`` times their number: the ablation.

    ``data_term`` is what the noise must not disturb: the ``"outputs"`` of the original, as relative squared distance
    (``penjing.terms.outputs``), or the ``"labels"``, by cross-entropy. A network that knows its training pictures by
    heart has next to no loss there, and its curvature says little of what a gate is worth; its outputs still move.

    The weight of KL at a site is β0 times the positions of its map. Without a budget ``beta`` is β0; under a budget β0
    is solved anew before each site, so that closed-form survivors of all the sites that are left keep every bound: a
    unit whose gate has the Fisher information a is expected to go where a ≤ β (1 + exp(-threshold)). What learning then
    keeps beyond the budget goes too, the noisiest first, and what it would take beyond the budget stays, the least
    noisy first; so it does at the end, up to ``rounds`` times, where a bound must be measured (latency, size) and the
    exported file exceeds it. With ``warm`` gates start at the closed form's optimum, μ = 1 - β/a and σ² = β/a (1 -
    β/a), measured on ``images`` calibration pictures, instead of at μ = 1 and ln σ² = -9. ``lr`` is that of the
    weights, which do not decay meanwhile: decay on the next layer fights the shrinking of μ. Further ``terms`` may join
    the loss, such as soft_targets.

    Raises: PlanError naming an option that cannot be; Infeasible when the budget cannot be met.
    Paper: Zhou, Zhang, Wang, Tian, Accelerate CNN via Recursive Bayesian Pruning, ICCV 2019.
    Reconstruction: the prior's density, thresholds, rates and the budget are ours; only the abstract, the introduction
    and a figure were at hand. The paper's data term is that of the labels. ``prior`` is a name of
    ``penjing.terms.priors.PRIORS`` or an object of such a form.
    """

    epochs: float = 10.0
    prior: Any = "ard"
    data_term: Literal["outputs", "labels"] = "outputs"
    recursive: bool = True
    warm: bool = True
    beta: float = 1.4e-5
    threshold: float = 0.0
    lr: float = 5e-3
    gate_lr: float = 1e-2
    terms: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: PlanError naming the option.
        """
        self.refuse("beta", "gate_lr")
        if isinstance(self.prior, str) and self.prior not in PRIORS:
            raise PlanError(f"rbp: prior is one of {', '.join(PRIORS)}; got {self.prior!r}.")
        if self.data_term not in ("outputs", "labels"):
            raise PlanError(f"rbp: data_term is outputs or labels; got {self.data_term!r}.")
        if not math.isfinite(self.threshold):
            raise PlanError(f"rbp: threshold is that of ln(σ²/μ²), a number; got {self.threshold}.")

    def __call__(self, state: State, run: Run) -> State:
        """Return the state with the pruned network.

        Raises: Infeasible when the budget cannot be met; PlanError when nothing may be cut.
        """
        data = state.data_for("rbp") if self.data_term == "outputs" else state.labelled_for("rbp with data_term labels")
        with run.stage("rbp") as said:
            names = [
                site.name for site in gated_sites("rbp", trace(state.model, *state.example), self.include, self.exclude)
            ]
            groups = [[name] for name in names] if self.recursive else [names]
            epochs = self.epochs * (1 if self.recursive else len(names))
            before = after = 0
            left: dict[str, Floats] = {}
            for i, group in enumerate(groups):
                state, (had, kept) = self._pruned(
                    state, run, data, group, names[names.index(group[-1]) + 1 :], epochs, left
                )
                before, after = before + had, after + kept
                run.note("rbp", {"sites": group, "number": i + 1, "of": len(groups), "units": had, "kept": kept})
            state, further = self._measured(state, run, data, left)
            if chains_of(state.model):
                graph = with_ranks_that_pay(trace(state.model, *state.example), self.include, self.exclude)
                state = state.with_model(refolded(Cut(Plan(), state.model, None), graph).model)
            said.append(f"{after - further} of {before} channels of {len(names)} sites left")
        return state

    def _measured(self, state: State, run: Run, data: Data, left: Mapping[str, Floats]) -> tuple[State, int]:
        """Cut further, the noisiest of what is left, as the exported file wants it; return how many units went.

        Raises: Infeasible when it keeps no bound within the rounds.
        """
        graph = with_ranks_that_pay(trace(state.model, *state.example), self.include, self.exclude)
        pricer = Pricer(graph, state, run, self.budget)
        if not any(pricer.is_measured(bound.cost) for bound in pricer.bounds):
            return state, 0
        step = step_of(None, ["channels"], pricer)
        found = [site for site in gated_sites("rbp", graph, self.include, self.exclude) if site.name in left]
        sites = [_floored(site) for site in at_step(found, step)]
        problem = priced(sites, left, pricer, run)
        cut = cut_learned(state.model, graph, problem, pricer, run, self.rounds, ["channels"])
        if not len(cut.plan):
            return state, 0
        recalibrate_norms(cut.model, data.calibration(self.images, run.seed, size=128))
        return state.with_model(cut.model, cut.plan), sum(entry.size - len(entry.kept) for entry in cut.plan)

    # ---------------------------------------------------------------------------------------------------- one part

    def _pruned(
        self, state: State, run: Run, data: Data, group: Sequence[str], later: Sequence[str], epochs: float,
        left: dict[str, Floats],
    ) -> tuple[State, tuple[int, int]]:  # fmt: skip
        """Infer the gates of a group of sites, cut it, and return the state and its units before and after.

        ``left`` is told of each unit that stays how far it is from noise: μ² / σ².
        """
        part = self._part(state, run, data, group, later)
        beta, expected = self._beta(part)
        start = {site.name: self._start(part, site, beta) for site in part.now}
        prior: Prior = PRIORS[self.prior]() if isinstance(self.prior, str) else self.prior
        lessons = self.lessons(data, run, 0.0, epochs, group[0])
        by_labels = self.data_term == "labels"
        noise = Noise(part.graph, start, prior, self.gate_lr, lessons.steps, float(by_labels))
        model = state.copy_model()
        terms = [build("term", term) for term in (*(() if by_labels else ("outputs",)), *self.terms)]
        lessons.teach(model, [noise, *terms], state, run)
        learned = noise.learned()
        fold(model, part.graph, {name: mu.float() for name, (mu, _) in learned.items()})
        plan = self._plan(part, learned, expected)
        cut = file_cut(cut_proved(model, part.graph, plan), part.graph, run, ["channels"])
        recalibrate_norms(cut.model, data.calibration(self.images, run.seed, size=128))
        kept = {site.name: np.arange(site.size) for site in part.now} | plan.of_rewrite("channels")
        for name, stays in kept.items():
            mu, variance = (x.numpy()[stays] for x in learned[name])
            left[name] = np.square(mu) / np.maximum(variance, 1e-30) + 1e-30
        units = sum(site.size for site in part.now), sum(map(len, kept.values()))
        return state.with_model(cut.model, *([plan] if len(plan) else [])), units

    def _part(self, state: State, run: Run, data: Data, group: Sequence[str], later: Sequence[str]) -> Part:
        """Return what is known of the sites that are left, given what became of those before."""
        graph = with_ranks_that_pay(trace(state.model, *state.example), self.include, self.exclude)
        pricer = Pricer(graph, state, run, self.budget)
        found = gated_sites("rbp", graph, self.include, self.exclude)
        sites = {site.name: _floored(site) for site in at_step(found, step_of(None, ["channels"], pricer))}
        now, rest = ([sites[name] for name in names if name in sites] for names in (group, later))
        evidence = Evidence(state.model, graph, data.calibration_labelled(self.images, run.seed), seed=run.seed)
        fisher = self._fisher(evidence, [*now, *rest])
        positions = {site.name: _positions(graph, site) for site in (*now, *rest)}
        scores = {name: a / positions[name] for name, a in fisher.items()}
        return Part(graph, now, rest, fisher, positions, priced([*now, *rest], scores, pricer, run))

    def _fisher(self, evidence: Evidence, sites: Sequence[Site]) -> dict[str, Floats]:
        """Return the curvature of the data term by a gate on each unit, at gate one, [units] by site."""
        by_labels = self.data_term == "labels"
        source, scale = (evidence, 1.0) if by_labels else (evidence.of_logits, 2.0 / _power(evidence))
        return {site.name: scale * source.gate_gradients(site).double().square().mean(0).numpy() for site in sites}

    def _beta(self, part: Part) -> tuple[float, Mapping[str, int]]:
        """Return β0, as given or the smallest whose closed-form survivors keep every bound, and how many survive.

        Raises: Infeasible when none does.
        """
        problem, odds = part.problem, 1 + math.exp(-self.threshold)
        if not problem.bounds:
            return self.beta, {}
        ranked = np.sort(np.concatenate([problem.scores[site.name] for site in problem.sites]))

        def counts(share: float) -> dict[str, int]:
            edge = _edge(ranked, share)
            return {s.name: s.allowed(int((problem.scores[s.name] > edge).sum()) + s.step / 2) for s in problem.sites}

        if not problem.fits(problem.keep(counts(0.0))):
            problem.refuse(problem.keep(counts(0.0)))
        low, high = (1.0, 1.0) if problem.fits(problem.keep(counts(1.0))) else (0.0, 1.0)
        while high - low > 1e-6:
            middle = (low + high) / 2
            low, high = (middle, high) if problem.fits(problem.keep(counts(middle))) else (low, middle)
        return max(_edge(ranked, low), 1e-30) / odds, counts(low)

    def _start(self, part: Part, site: Site, beta0: float) -> Start:
        """Return where the gates of a site begin, and what their KL weighs."""
        beta = beta0 * part.positions[site.name]
        if not self.warm:
            return Start(torch.ones(site.size), torch.full((site.size,), COLD), beta)
        share = torch.from_numpy(np.clip(beta / np.maximum(part.fisher[site.name], 1e-30), 1e-3, CERTAIN))
        return Start(1 - share, (share * (1 - share)).log(), beta)

    def _plan(self, part: Part, learned: Mapping[str, tuple[Tensor, Tensor]], expected: Mapping[str, int]) -> Plan:
        """Return what stays: what is no noise, as far as the budget allows with later sites as they are expected."""
        scores: dict[str, Floats] = {site.name: part.problem.scores[site.name] for site in part.later}
        counts = {site.name: expected.get(site.name, site.size) for site in part.later}
        for site in part.now:
            mu, variance = (np.maximum(x.numpy(), 1e-30) for x in (learned[site.name][0].abs(), learned[site.name][1]))
            scores[site.name] = 2 * np.log(mu) - np.log(variance)
            alive = (-scores[site.name] < self.threshold) & (mu > TINY_MEAN)
            counts[site.name] = site.allowed(int(alive.sum()) + site.step / 2)
        problem = replace(part.problem, scores=scores, _orders={}, _entries={})
        while not problem.fits(problem.keep(counts)):
            above = [site for site in part.now if counts[site.name] > site.fewest]
            if not above:
                break  # the sites before kept more than was expected; those that come make up for it
            noisiest = min(above, key=lambda s: float(scores[s.name][problem.order(s)[counts[s.name] - 1]]))
            counts[noisiest.name] = noisiest.below(counts[noisiest.name])
        else:
            dead = {site.name: int((learned[site.name][0].abs().numpy() <= TINY_MEAN).sum()) for site in part.now}
            _filled(problem, counts, {site.name: site.size - dead[site.name] for site in part.now})
        return Plan.of("channels", {s.name: problem.order(s)[: counts[s.name]] for s in part.now}, part.now)


def _filled(problem: Problem, counts: dict[str, int], most: Mapping[str, int]) -> None:
    """Give back, in place, the least noisy units of these sites, up to ``most``, while every bound holds."""
    open_ = [site for site in problem.sites if site.name in most] if problem.bounds else []
    while open_ := [site for site in open_ if counts[site.name] < most[site.name]]:
        nearest = max(open_, key=lambda s: float(problem.scores[s.name][problem.order(s)[counts[s.name]]]))
        more = {**counts, nearest.name: nearest.above(counts[nearest.name], nearest.step)}
        if problem.fits(problem.keep(more)):
            counts.update(more)
        else:
            open_.remove(nearest)


def _floored(site: Site) -> Site:
    """Return the site with the floor of this method."""
    floor = max(FEWEST_UNITS, math.ceil(FEWEST_SHARE * site.size))
    return replace(site, least=min(max(site.least, floor), site.size))


def _power(evidence: Evidence) -> float:
    """Return the mean squared norm of the outputs."""
    with torch.no_grad():
        norms = [logits_of(evidence.model(x), len(x)).double().square().sum(1) for x, _ in evidence.batches]
    return max(float(torch.cat(norms).mean()), 1e-30)


def _positions(graph: Graph, site: Site) -> int:
    """Return the positions of the map that the site's units fill; of several, the largest."""
    writers = [layer for layer in graph.layers if np.isin(layer.out_units, site.ids).any()]
    return max((math.prod(layer.out_size) for layer in writers), default=1)


def _edge(ranked: Floats, share: float) -> float:
    """Return the score above which this share of all units lies."""
    return float(ranked[min(int((1 - share) * len(ranked)), len(ranked) - 1)]) if share < 1 else float(ranked[0]) / 2
