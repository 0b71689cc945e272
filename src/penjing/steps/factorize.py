"""Factorise layers: write each as a chain of smaller ones, of ranks that a rule gives or that a budget decides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from penjing.core.errors import PlanError, did_you_mean
from penjing.core.layers import Layer
from penjing.core.plan import Plan
from penjing.core.registry import build, entries, register
from penjing.core.sites import Site
from penjing.factors.base import Ranks
from penjing.factors.layer import LayerSpec
from penjing.factors.side_by_side import side_by_side
from penjing.graph.chains import prove_chains, size_read, why_whole
from penjing.graph.graph import Graph
from penjing.graph.quantized import refuse_quantized
from penjing.graph.trace import trace
from penjing.rewrites.factored import Factored, Made
from penjing.rewrites.perform import perform
from penjing.steps.filed import file_certificate, file_errors, file_widths
from penjing.steps.patterns import takes
from penjing.steps.pictures import seeing
from penjing.steps.prune import prune
from penjing.steps.rank_rules import LOOKING, Rule
from penjing.steps.state import Run, State


@register("step")
@dataclass(frozen=True)
class factorize:  # noqa: N801  (registered under its own name)
    """Write layers as chains of smaller ones by a ``rewrite``: ``svd``, ``svd_spatial``, ``tucker2`` and so on.

    ``ranks`` is a number, ``full``, or a rule: ``evbmf`` (or ``{evbmf: 0.8}``, weakened), ``{energy: 0.9}`` of the
    squared weights to keep, ``{share: 0.5}`` of the full rank, ``{ratio: 2}`` times fewer parameters. Without it the
    budget decides by ``allocator``, as in ``prune``, whose other options are those of the same name. What a rule gives
    is rounded up to multiples of ``step``. A layer whose chain would not have fewer MACs and parameters stays whole and
    is noted, but for ``full``, with which every chain computes what its layer does, for ranks to be pruned from (PRF).
    ``svd_responses`` looks at what layers write on ``images`` calibration pictures, without labels: its energy is the
    variance of that.
    ``lowrank_basis`` draws its filters anew, for a network that is trained from scratch.
    """

    rewrite: Any = "svd"
    ranks: Any = None
    allocator: Any = None
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    step: int | None = None
    images: int = 512
    budget: Mapping[str, Any] | str | None = None
    measure: Any = None

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: PlanError naming the option.
        """
        known = {name: one for name, one in entries("rewrite").items() if issubclass(one, Factored)}
        if self.name not in known:
            raise PlanError(f"factorize: {self.name!r} is no factorisation.{did_you_mean(self.name, known)}")
        build("rewrite", self.rewrite)
        for name in ("include", "exclude"):
            if isinstance(getattr(self, name), str):
                object.__setattr__(self, name, (getattr(self, name),))
        if self.ranks is None:
            if self.name != self.rewrite and self.rewrite != {self.name: {}}:
                raise PlanError(f"factorize: a budget decides ranks of {self.name} as it is; give ranks or no option.")
            self.as_prune()
            return
        for name in ("allocator", "budget", "measure"):
            if getattr(self, name) is not None:
                raise PlanError(f"factorize: {name} is for ranks that a budget decides; leave it out, or ranks.")
        Rule.of(self.ranks)
        if self.step is not None and self.step < 1:
            raise PlanError(f"factorize: step must be a whole number, 1 or more; got {self.step}.")

    @property
    def name(self) -> str:
        """The name of the rewrite."""
        return str(next(iter(self.rewrite), "")) if isinstance(self.rewrite, Mapping) else str(self.rewrite)

    def as_prune(self) -> prune:
        """Return the step that lets the budget decide."""
        allocator = {"knapsack": {"loss": "scores"}} if self.allocator is None else self.allocator
        own = {} if self.measure is None else {"measure": self.measure}
        return prune(
            allocator=allocator, rewrite=self.name, include=self.include, exclude=self.exclude, step=self.step,
            images=self.images, budget=self.budget, **own,
        )  # fmt: skip

    def __call__(self, state: State, run: Run) -> State:
        """Return the state with layers put as chains.

        Raises: PlanError when no layer may be factored, weights are not finite or memory does not suffice; Infeasible
        as ``prune``.
        """
        refuse_quantized("factorize", state.model)
        if self.ranks is None:
            return self.as_prune()(state, run)
        with run.stage("factorize") as said:
            change: Factored = seeing(build("rewrite", self.rewrite), state, self.images, run.seed)
            if change.drawn and getattr(change, "seed", 0) is None:
                change = replace(change, seed=run.seed)  # type: ignore[call-arg]
            graph = trace(state.model, *state.example)
            taken = list(self._taken(graph, change))
            if not taken:
                raise PlanError(self._nothing(state.model, graph, change))
            if self.ranks == "full" and not change.by.exact and not change.drawn:
                raise PlanError(
                    f"factorize: {self.name} only comes near a layer, also at full rank; take svd, or give ranks."
                )
            self._check_number(change, taken)
            model, plan = self._made(state, run, graph, change, taken)
            certificate = prove_chains(graph, model, state.model)
            if not certificate.ok:
                raise PlanError(f"The chains do not compute what their products do: {certificate.verdict}.")
            file_certificate(run, certificate)
            file_widths(run, graph, plan, [self.name])
            file_errors(run, graph, plan, state.model, model)
            said.append(f"{self.name}: {len(taken)} layers looked at, {len(_layers(plan)) or len(taken)} in chains")
        return state.with_model(model, *([plan] if len(plan) else []))

    def _taken(self, graph: Graph, change: Factored) -> Iterator[tuple[Layer, LayerSpec]]:
        for layer in graph.layers:
            spec = graph.modules.get(layer.weight)
            if spec is not None and not change.refuses(spec) and takes(layer, self.include, self.exclude):
                yield layer, spec

    def _nothing(self, model: nn.Module, graph: Graph, change: Factored) -> str:
        """Say why no layer is factored, by the first that the patterns name."""
        for layer in graph.layers:
            if takes(layer, self.include, self.exclude):
                spec = graph.modules.get(layer.weight)
                why = why_whole(model, graph, layer) if spec is None else change.refuses(spec)
                return f"Nothing may be factorised by {self.name}: {layer.name} {why}."
        return (
            f"Nothing may be factorised by {self.name}: no layer matches include {list(self.include)} without "
            f"exclude {list(self.exclude)}."
        )

    def _check_number(self, change: Factored, taken: Sequence[tuple[Layer, LayerSpec]]) -> None:
        """Refuse a rank above the full rank of every layer, naming the one that has most."""
        rule = Rule.of(self.ranks)
        layer, most = max(((layer, max(change.by.full(spec))) for layer, spec in taken), key=lambda one: one[1])
        if rule.name == "number" and rule.number > most:
            raise PlanError(
                f"factorize: rank {rule.number} is above the full rank of every layer; {layer.name} has {most}."
            )

    def _made(
        self, state: State, run: Run, graph: Graph, change: Factored, taken: list[tuple[Layer, LayerSpec]]
    ) -> tuple[nn.Module, Plan]:
        """Return the network in chains, and the plan of what it keeps."""
        model, kept, whole = state.copy_model(), dict[str, np.ndarray](), dict[str, Made]()
        sites: list[Site] = []
        for (layer, spec), ranks in zip(taken, self._ranks(change, taken, state.model), strict=True):
            full = change.by.full(spec)
            if self.ranks == "full" or (ranks == full and change.by.pays(spec, full, size_read(layer, spec))):
                whole[layer.weight.rpartition(".")[0]] = (layer.name, change.by, full)
            elif not change.pays(spec, dict(zip(change.by.axes, ranks, strict=True)), size_read(layer, spec)):
                why = f"stays whole: at rank {' x '.join(map(str, ranks))} {self.name} saves nothing"
                run.note("pinned", {"where": layer.name, "units": layer.out_channels, "line": "", "why": why})
            else:
                for axis, size, rank in zip(change.by.axes, full, ranks, strict=True):
                    name = f"{layer.name}/{axis}"
                    sites.append(Site(name, "ranks", size, (), np.arange(0)))
                    kept[name] = np.arange(rank)
        change.put(model, whole)
        plan = Plan.of(self.name, kept, sites)
        perform(model, graph, plan, {self.name: change})
        return model, plan

    def _ranks(self, change: Factored, taken: Sequence[tuple[Layer, LayerSpec]], model: nn.Module) -> list[Ranks]:
        """Return the ranks that the rule gives each layer."""
        rule, step = Rule.of(self.ranks), self.step or 1
        if rule.name in LOOKING:
            change.look(model)

        def chosen(one: tuple[Layer, LayerSpec]) -> Ranks:
            layer, spec = one
            path = layer.weight.rpartition(".")[0]
            return rule(change.by, spec, lambda: change.spectra(model, path, layer.name), step)

        needs = [change.needs(spec) if rule.name in LOOKING else 0 for _, spec in taken]
        return side_by_side(chosen, taken, needs, "choosing ranks")


def _layers(plan: Plan) -> set[str]:
    return {entry.site.rpartition("/")[0] for entry in plan}
