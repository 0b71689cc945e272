"""Quantize layers: weights, and maybe what layers read, in few bits, as many as are given or a budget allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from penjing.core.errors import PlanError, did_you_mean
from penjing.core.plan import Plan
from penjing.core.registry import build, entries, register
from penjing.graph.graph import Graph
from penjing.graph.quantized import FLOAT, quantized, refuse_quantized
from penjing.graph.trace import trace
from penjing.rewrites.perform import perform
from penjing.rewrites.rounded import SAMPLES, Rounded
from penjing.steps.ends import ends_of
from penjing.steps.filed import file_widths
from penjing.steps.int8 import int8
from penjing.steps.patterns import takes
from penjing.steps.pictures import told_count
from penjing.steps.prune import prune
from penjing.steps.state import Run, State
from penjing.training.recalibrate import batch_norms, recalibrate


@register("step")
@dataclass(frozen=True)
class quantize:  # noqa: N801  (registered under its own name)
    """Write layers in few bits by a ``method``: ``lsq``, ``twn``, ``xnor``, ``codebook`` and so on, with its options.

    ``bits`` are those of a weight: a number, or one by pattern such as ``{"layer3*": 2, "*": 4}``, of which the first
    counts; by default those usual for the method. A layer that no pattern means stays in floats, and so do the first
    and the last unless ``ends`` is true. Where bits are left out and ``allocator`` is given, or a ``budget``, the
    budget decides, as in ``prune``, whose other options are those of the same name. ``images`` training pictures,
    without labels, show what layers read. Batch norm, which has seen other numbers than it gets then, is recalibrated
    on ``refresh`` pictures, on none where that is 0 or the step ``recalibrate`` follows. What was quantized trains on
    by ``train``; channels, ranks and blocks go before it. The method ``int8`` is the step of that name.
    """

    method: Any = "lsq"
    bits: Any = None
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    ends: bool = False
    images: int = SAMPLES
    refresh: int = 1024
    allocator: Any = None
    budget: Mapping[str, Any] | str | None = None
    measure: Any = None

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: PlanError naming the option.
        """
        if isinstance(self.method, Mapping) and len(self.method) > 1:
            raise PlanError(
                f"quantize: method is one, with its options; got {' and '.join(map(str, self.method))}. All layers in "
                "few bits have the same method."
            )
        if self.name == "int8":
            self.as_int8()
            return
        if self.name not in (known := methods()):
            hint = did_you_mean(self.name, [*known, "int8"])
            raise PlanError(f"quantize: there is no method {self.name!r}.{hint}")
        for name in ("include", "exclude"):
            if isinstance(getattr(self, name), str):
                object.__setattr__(self, name, (getattr(self, name),))
        if isinstance(self.images, bool) or not isinstance(self.images, int) or self.images < 1:
            raise PlanError(f"quantize: images must be a whole number, 1 or more; got {self.images!r}.")
        if isinstance(self.refresh, bool) or not isinstance(self.refresh, int) or self.refresh < 0:
            raise PlanError(f"quantize: refresh must be a whole number, 0 or more; got {self.refresh!r}.")
        widths = self.change.quantizer.widths
        if self.searched:
            if self.bits is not None:
                raise PlanError("quantize: give bits, or leave them to a budget, and not both.")
            if self.change.options:
                raise PlanError(f"quantize: a budget decides bits of {self.name} as it is; give bits or no option.")
            return
        for bits in [one for _, one in self._given()]:
            if isinstance(bits, bool) or bits not in (*widths, FLOAT):
                raise PlanError(
                    f"quantize: {self.name} has weights of {_listed(widths)}, and 32 leaves a layer in floats; "
                    f"got {bits!r}."
                )

    @property
    def name(self) -> str:
        """The name of the method."""
        return str(next(iter(self.method), "")) if isinstance(self.method, Mapping) else str(self.method)

    @property
    def change(self) -> Rounded:
        """The rewrite.

        Raises: PlanError for options that are none; RecipeError as ``build``.
        """
        options = (self.method[self.name] if isinstance(self.method, Mapping) else None) or {}
        if not isinstance(options, Mapping):
            raise PlanError(f"quantize: options of {self.name} are written {{option: value}}; got {options!r}.")
        made: Rounded = build("rewrite", {self.name: {"options": dict(options)}})
        return made

    @property
    def searched(self) -> bool:
        """Whether a budget decides about bits."""
        return any(one is not None for one in (self.allocator, self.budget, self.measure))

    def _given(self) -> list[tuple[str, Any]]:
        if isinstance(self.bits, Mapping):
            return [(str(pattern), bits) for pattern, bits in self.bits.items()]
        quantizer = self.change.quantizer
        usual = quantizer.usual if quantizer.usual in quantizer.widths else min(quantizer.widths)
        return [("*", usual if self.bits is None else self.bits)]

    def as_int8(self) -> int8:
        """Return the step that lets the exported file compute in 8-bit whole numbers, which is another thing.

        Raises: PlanError for an option beside the method, RecipeError for one of the method that it has not.
        """
        given = [f.name for f in fields(self) if f.name != "method" and getattr(self, f.name) != f.default]
        if given:
            raise PlanError(
                f"quantize: int8 takes no {given[0]} beside it; its options are its own, such as "
                "method: {int8: {images: 512}}."
            )
        made: int8 = build("step", self.method)
        return made

    def as_prune(self) -> prune:
        """Return the step that lets the budget decide about the layers."""
        return prune(
            allocator="knapsack" if self.allocator is None else self.allocator, rewrite=self.name, ends=self.ends,
            include=self.include, exclude=self.exclude, images=self.images, budget=self.budget, measure=self.measure,
        )  # fmt: skip

    def __call__(self, state: State, run: Run) -> State:
        """Return the state with quantized layers.

        Raises: PlanError when no layer may be quantized, or one is already; Infeasible as ``prune``.
        """
        if self.name == "int8":
            return self.as_int8()(state, run)
        refuse_quantized("quantize", state.model)
        done = self.as_prune()(state, run) if self.searched else self._rounded(state, run)
        return self._refreshed(done, run)

    def _refreshed(self, state: State, run: Run) -> State:
        """Return the state with batch norms that have seen what rounded layers write, where there are pictures."""
        data = state.data
        if not self.refresh or data is None or len(data.train) < 2 or not batch_norms(state.model):
            return state
        with run.stage("quantize", f"batch norm on {told_count(self.refresh, data)}"):
            model = state.copy_model()
            recalibrate(model, data.calibration(self.refresh, run.seed, size=128))
        return state.with_model(model)

    def _rounded(self, state: State, run: Run) -> State:
        """Return the state with layers in the bits that are given."""
        graph = trace(state.model, *state.example, proof=False)
        with run.stage("quantize") as said:
            change, plan = self.change, self._plan(graph, run)
            model = state.copy_model()
            change = self._seeing(change, state, run)
            perform(model, graph, plan, {self.name: change})
            file_widths(run, graph, plan, [self.name])
            layers = quantized(model)
            told = sorted({layer.precision.bits for layer in layers.values()})
            said.append(f"{self.name}: {len(layers)} of {len(graph.layers)} layers, weights of {_listed(told)}")
        return state.with_model(model, plan)

    def _plan(self, graph: Graph, run: Run) -> Plan:
        """Return the bits that the layers keep.

        Raises: PlanError when none is left.
        """
        sites = {site.name: site for site in self.change.find(graph)}
        ends = set() if self.ends else {layer.name for layer in ends_of(graph)}
        kept, why = dict[str, np.ndarray](), ""
        for layer in graph.layers:
            name = f"{layer.name}/bits"
            if not takes(layer, self.include, self.exclude):
                continue
            if name not in sites:
                why = why or f"{layer.name} is no convolution or linear layer of torch's own that runs once"
                note = {"where": layer.name, "units": layer.out_channels, "line": "",
                        "why": "stays in floats: it is no nn.Conv2d or nn.Linear that runs once"}  # fmt: skip
                run.note("pinned", note)
            elif layer.name in ends:
                why = why or f"{layer.name} is the first or last layer; ends: true takes them as well"
            else:
                bits = next((bits for pattern, bits in self._given() if takes(layer, (pattern,), ())), FLOAT)
                kept[name] = np.arange(bits)
        if not kept:
            why = why or f"no layer matches include {list(self.include)} without exclude {list(self.exclude)}"
            raise PlanError(f"quantize: nothing may be quantized: {why}.")
        if all(len(bits) == FLOAT for bits in kept.values()):
            names = ", ".join(name.removesuffix("/bits") for name in list(kept)[:5])
            raise PlanError(
                f"quantize: bits {self.bits!r} leave every layer in floats ({names}); give a pattern that means one of "
                "them, or '*' for all."
            )
        return Plan.of(self.name, kept, list(sites.values()))

    def _seeing(self, change: Rounded, state: State, run: Run) -> Rounded:
        """Return the rewrite with pictures, where layers are rounded by what they read.

        Raises: PlanError where they do and there is no data.
        """
        quantizer = change.quantizer
        if not any(quantizer.wants_samples(bits) for _, bits in self._given() if bits != FLOAT):
            return change
        return change.on(tuple(state.data_for("quantize").calibration(self.images, run.seed)))


def methods() -> list[str]:
    """Return the names of the rewrites that quantize."""
    return [name for name, one in entries("rewrite").items() if issubclass(one, Rounded)]


def _listed(bits: Sequence[int]) -> str:
    """Return bits in words.

    >>> _listed([2]), _listed([2, 3, 4, 5, 6, 7, 8]), _listed([1, 2, 4])
    ('2 bits', '2 to 8 bits', '1, 2 or 4 bits')
    """
    whole = list(bits)
    if whole == [1]:
        return "1 bit"
    if len(whole) > 2 and whole == list(range(whole[0], whole[-1] + 1)):
        return f"{whole[0]} to {whole[-1]} bits"
    return f"{', '.join(map(str, whole[:-1]))}{' or ' if len(whole) > 1 else ''}{whole[-1]} bits"
