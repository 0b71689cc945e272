"""Low-cost collaborative layers: cheap maps whose zeros say where a convolution need not be computed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from penjing.core import console
from penjing.core.errors import PlanError, did_you_mean
from penjing.core.registry import register
from penjing.criteria.zeros import average, validation_pictures, zeros_after_relu
from penjing.data.data import Data
from penjing.exporting.modes import evaluating
from penjing.exporting.skipping import race, skippers, skipping
from penjing.graph.collaborative import KINDS, Kind, Partner, attach, collaborators, partners, places
from penjing.graph.graph import Graph
from penjing.graph.proof import prove
from penjing.graph.trace import trace
from penjing.steps.filed import file_certificate
from penjing.steps.patterns import matches
from penjing.steps.pictures import need_some
from penjing.steps.state import Run, State
from penjing.steps.train import train
from penjing.terms.map_zeros import MapZeros
from penjing.training.foretell import foretell
from penjing.training.renew import renew
from penjing.training.state import chance

CALIBRATION = 512
"""Training pictures, without labels, that warm maps are fitted on."""


@register("step")
@dataclass(frozen=True)
class lccl(train):  # noqa: N801  (registered under its own name)
    """Multiply convolutions by the map of a cheap layer beside them, whose zeros need not be computed, and train both.

    A convolution W, its batch norm and its ReLU become ReLU(BN(W * x)) · ReLU(BN'(W' * x)). ``kind`` says what W' is:
    ``shared``, one filter of the size of W for all outputs, so that a zero skips the whole position; or ``pointwise``,
    a 1x1 convolution with as many outputs, whose zeros belong to single channels. By default every dense convolution
    that a batch norm and a ReLU alone follow gets one, but for that which reads the picture: of a residual block the
    first, never across the sum; ``include`` and ``exclude`` choose among them by name. With ``start: warm`` a map
    begins as 1, so that the network computes what it did (proved), its filters fitted in least squares to how large
    the output is; ``scratch`` is the paper's: all weights are drawn anew, and a map begins half zero. By the share
    ``end`` of all steps about ``zeros`` of each map is zero; None leaves it to the loss, as the paper does.
    ``penalty`` asks for more, by the maps' L1 norm relative to their size. All other options are those of ``train``.

    What came of it is measured on ``images`` validation pictures: the zeros after each ReLU, before and after; those
    of each map; the multiply-accumulates of a convolution that skips them (``penjing.exporting.skipping``), and its
    latency in torch beside the original's. The exported file computes every position, and costs more than before.

    Raises: PlanError naming an option that cannot be, or a layer that cannot have a map.
    Paper: Dong, Huang, Yang, Yan, More is Less: A More Complicated Network with Less Inference Complexity, CVPR 2017.
    Differs: the warm start, the share that is asked for and the penalty; training is taught by the original, by
    default.
    """

    kind: Kind = "shared"
    start: Literal["warm", "scratch"] = "warm"
    zeros: float | None = 0.6
    end: float = 0.5
    penalty: float = 0.0
    images: int = 256
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: PlanError naming the option.
        """
        for name, known in (("kind", KINDS), ("start", ("warm", "scratch"))):
            if getattr(self, name) not in known:
                raise PlanError(f"lccl: {name} is {' or '.join(known)}; got {getattr(self, name)!r}.")
        if self.zeros is not None and not 0 < self.zeros < 1:
            raise PlanError(f"lccl: zeros is the share of a map to become zero, between 0 and 1; got {self.zeros}.")
        if not 0 <= self.end <= 1:
            raise PlanError(f"lccl: end is a share of all steps, from 0 to 1; got {self.end}.")
        if not (math.isfinite(self.penalty) and self.penalty >= 0):
            raise PlanError(f"lccl: penalty must be a number, 0 or more; got {self.penalty}.")
        if self.keep == "best" and self.zeros is not None:
            raise PlanError("lccl: keep best would go back to an epoch with fewer zeros; leave keep out.")
        need_some("lccl", self.images)

    def __call__(self, state: State, run: Run) -> State:
        """Return the state with a network of collaborative layers, trained.

        Raises: PlanError naming a layer that cannot have one.
        """
        data = state.data_for("lccl")
        with run.stage("lccl", f"{self.epochs} epochs") as said:
            graph = trace(state.model, *state.example)
            model = self._attached(state, graph, data, run)
            model = self.trained(state.with_model(model), run, said, self._term(model, len(data.train)))
            facts = self._measured(state, model, graph, validation_pictures(data, self.images, run.seed), run)
            run.note("lccl", facts)
            told = outcome(facts)
            run.note("remarks", told)
            console.remark(told)
            said.append(f"{facts['map zeros']:.0%} of the maps zero")
        return state.with_model(model)

    def _term(self, model: nn.Module, samples: int) -> MapZeros:
        until = round(self.end * self.steps(samples) * self.epochs) if self.start == "warm" else 0
        return MapZeros(list(collaborators(model)), self.penalty, self.zeros, until)

    def chosen(self, model: nn.Module, graph: Graph) -> dict[str, Partner]:
        """Return the convolutions that are to have a map.

        Raises: PlanError when there is none, or one is asked for by its very name that cannot have any.
        """
        found, refused = places(model, graph, self.kind)
        for pattern in self.include:
            if pattern in refused:
                raise PlanError(f"lccl: {pattern} cannot have a collaborative layer: {refused[pattern]}.")
            if not any(matches(_names(name), (pattern,), ()) for name in (*found, *refused)):
                raise PlanError(f"lccl: no layer is called {pattern!r}.{did_you_mean(pattern, (*found, *refused))}")
        kept = {name: one for name, one in found.items() if matches(_names(name), self.include, self.exclude)}
        if not kept:
            why = "; ".join(f"{name}: {reason}" for name, reason in list(refused.items())[:3])
            raise PlanError(f"lccl: no layer that include and exclude leave may have a collaborative layer ({why}).")
        return kept

    def _attached(self, state: State, graph: Graph, data: Data, run: Run) -> nn.Module:
        """Return a copy with maps that are 1 everywhere, proved; then, from scratch, with all weights drawn anew."""
        model = state.copy_model()
        wanted = self.chosen(model, graph)
        attach(model, wanted)
        certificate = prove(graph, state.model, model, {})
        if not certificate.ok:
            raise PlanError(
                f"lccl: with collaborative layers the network {certificate.verdict}; its forward uses one of "
                f"{', '.join(list(wanted)[:3])}{', ...' if len(wanted) > 3 else ''} or its batch norm in a way of its "
                "own. Name fewer by include."
            )
        file_certificate(run, replace(certificate, name="collaborative equals plain"))
        if self.start == "scratch":
            with chance(run.seed, f"{run.at}/scratch", torch.device("cpu")):
                renew(model)
        else:
            foretell(model, wanted, data.calibration(CALIBRATION, run.seed), run.seed)
        return model

    def _measured(
        self, state: State, model: nn.Module, graph: Graph, pictures: Sequence[Tensor], run: Run
    ) -> dict[str, Any]:
        """Return what is zero, what skipping it executes, and how long that takes, as plain data."""
        before = zeros_after_relu(state.model, graph, pictures)
        now = trace(model, *state.example, proof=False)
        after = zeros_after_relu(model, now, pictures)
        fast = skipping(model)
        with evaluating(fast):
            for x in pictures:
                fast(x)
        count = sum(map(len, pictures))
        layers: dict[str, dict[str, Any]] = {
            name: {"kind": partners(model)[name].kind, "zeros": one.zeros / one.values,
                   "macs": one.macs / count, "dense": one.dense / count}
            for name, one in skippers(fast).items()
        }  # fmt: skip
        own = {*layers, *(f"{name}.map.conv" for name in layers)}
        plain = sum(layer.macs for layer in now.layers if layer.name not in own)
        return {
            "kind": self.kind, "pictures": count, "layers": layers,
            "map zeros": sum(one["zeros"] for one in layers.values()) / len(layers),
            "zeros before": average(before), "zeros after": average(after),
            "relus before": [asdict(one) for one in before], "relus after": [asdict(one) for one in after],
            "macs before": sum(layer.macs for layer in graph.layers),
            "macs executed": plain + sum(one["macs"] for one in layers.values()),
            "macs dense": sum(layer.macs for layer in now.layers),
            "latency": self._raced(state.model, model, fast, pictures, run),
        }  # fmt: skip

    def _raced(
        self, before: nn.Module, model: nn.Module, fast: nn.Module, pictures: Sequence[Tensor], run: Run
    ) -> Mapping[str, Any]:
        """Return the latency in torch of the network before, the new one, and the one that skips, measured once."""
        some = [x for x in torch.cat(list(pictures)).split(run.batch) if len(x) == run.batch][:8]

        def taken() -> dict[str, Any]:
            models = {"before": before, "dense": model, "skipping": fast}
            timings = race(models, some, threads=run.threads, rounds=10)
            return {name: replace(timing, samples=()).__dict__ for name, timing in timings.items()}

        return run.journal.recall(f"latency of skipping in {run.at}", taken) if some else {}


def outcome(facts: Mapping[str, Any]) -> str:
    """Say in words what the zeros are and what skipping them brought."""
    macs = facts["macs executed"] / facts["macs before"]
    text = (
        f"Collaborative layers: {facts['map zeros']:.0%} of their maps are zero; of what ReLUs return "
        f"{facts['zeros before']:.0%} was before, {facts['zeros after']:.0%} is now. A network that skips executes "
        f"{macs:.2f} times the MACs of the one before"
    )
    if latency := facts["latency"]:
        faster = latency["before"]["median_ms"] / latency["skipping"]["median_ms"]
        gain = f"{faster:.2f}x as fast" if faster > 1.02 else f"no gain, {faster:.2f}x as fast"
        text += f"; measured in torch: {gain}"
    return f"{text}. The exported file computes every position."


def _names(layer: str) -> tuple[str, str]:
    """Return the names of a convolution that patterns mean."""
    return layer, f"conv:{layer}"
