"""Put quantized layers in layers' places: what every method of ``penjing.quantizers`` does to a network.

A unit is a bit of a weight: a site of a layer has 32, and kept whole it leaves the layer in floats. Every registered
quantizer has a rewrite of its own name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from penjing.core.layers import Layer
from penjing.core.registry import build, entries, register
from penjing.core.sites import Site, Slot
from penjing.core.units import Kept
from penjing.graph.graph import Graph
from penjing.graph.quantized import FLOAT, Precision, Quantized, attach, inputs_of, start, with_bits
from penjing.quantizers.base import Quantizer

Made = TypeVar("Made", bound=Quantizer)

SAMPLES = 128
"""Pictures that a layer's rounding of what it reads begins with."""


@dataclass(frozen=True)
class Rounded:
    """A rewrite of one quantizer; a site is called after its layer, ``conv1/bits``. Layers are torch's own, run once.

    ``options`` are the quantizer's; ``pictures`` show what layers read, where rounding begins with that.
    """

    by: ClassVar[str]

    options: Mapping[str, Any] = field(default_factory=dict)
    pictures: tuple[Tensor, ...] = field(default=(), repr=False, compare=False)

    @cached_property  # a search prices thousands of plans, layer by layer
    def quantizer(self) -> Quantizer:
        """The method."""
        made: Quantizer = build("quantizer", {self.by: dict(self.options)})
        return made

    def on(self, pictures: Sequence[Tensor]) -> Self:
        """Return the rewrite for these pictures."""
        return replace(self, pictures=tuple(pictures))

    def find(self, graph: Graph) -> list[Site]:
        """Return the bits of the layers that are modules of their own."""
        widths, none = self.quantizer.widths, np.arange(0)
        return [
            Site(f"{layer.name}/bits", "bits", FLOAT, (Slot(layer.weight, -1, "out", none, none),), none,
                 least=min(widths), most=max(widths), order=np.arange(FLOAT))
            for layer in graph.layers if layer.weight in graph.modules
        ]  # fmt: skip

    def scores(self, model: nn.Module, site: Site) -> Tensor:
        """Return by how much each bit lessens the share of a weight that rounding takes for noise."""
        weight = model.get_parameter(site.slots[0].tensor).detach()
        least, most = site.least, site.most
        few = _noise(self.quantizer, weight, least)
        # None has fewer than the least, so that what these bring is shared among them: scores that fall are in order.
        noise = [*np.linspace(1.0, few, least, endpoint=False).tolist(), few]
        noise += [_noise(self.quantizer, weight, bits) for bits in range(least + 1, most + 1)]
        noise += [noise[-1]] * (FLOAT - len(noise)) + [0.0]
        falling = torch.tensor(noise, dtype=torch.float64).cummin(0).values
        return falling[:-1] - falling[1:]

    @cached_property
    def _precisions(self) -> dict[int, Precision]:
        """What was asked for so far: a search prices thousands of plans."""
        return {}

    def _precision(self, bits: int) -> Precision:
        if bits not in self._precisions:
            self._precisions[bits] = Precision(self.quantizer, bits)
        return self._precisions[bits]

    def rounded(self, layer: Layer, kept: Kept) -> Layer:
        """Return a layer of whose bits these are kept."""
        return with_bits(layer, self._precision(len(kept))) if len(kept) < FLOAT else layer

    def apply(self, model: nn.Module, graph: Graph, kept: Mapping[str, Kept]) -> None:
        """Quantize the layers, in place; of one that is a chain by now, every stage."""
        paths = {layer.name: layer.weight.rpartition(".")[0] for layer in graph.layers}
        quantizer = self.quantizer
        wanted = {
            path: Precision(quantizer, bits)
            for name, bits in _bits(kept).items()
            for path in _leaves(model, paths[name])
        }
        self.put(model, wanted)

    def put(self, model: nn.Module, wanted: Mapping[str, Precision]) -> None:
        """Quantize the layers of these paths, in place, and start what they hold.

        Raises: PlanError naming a layer that cannot be, by its weight or what it reads.
        """
        reading = [name for name, one in wanted.items() if one.quantizer.wants_samples(one.bits)]
        device = next(model.parameters()).device
        seen = inputs_of(model, reading, (x.to(device) for x in self.pictures), SAMPLES) if reading else {}
        attach(model, wanted)
        start(model, wanted, seen)


def _bits(kept: Mapping[str, Kept]) -> dict[str, int]:
    return {site.rpartition("/")[0]: len(units) for site, units in kept.items() if len(units) < FLOAT}


def _leaves(model: nn.Module, path: str) -> Iterator[str]:
    """Yield the layers of the module of this path; none where it went with the block that held it."""
    held = [(name, module) for name, module in model.named_modules() if name == path or name.startswith(f"{path}.")]
    for name, module in held:
        if isinstance(module, nn.Conv2d | nn.Linear) and not isinstance(module, Quantized):
            yield name


@torch.no_grad()
def _noise(quantizer: Quantizer, weight: Tensor, bits: int) -> float:
    """Return the squared error of a rounded weight as a share of the weight's squares."""
    rounding = quantizer.weights(tuple(weight.shape), bits)
    latent = rounding.start(weight)
    gap = (rounding(latent) - weight).double().square().sum()
    return float(gap / weight.double().square().sum().clamp_min(1e-300))


def method(quantizer: type[Made]) -> type[Made]:
    """Register the rewrite of a quantizer under the quantizer's name; return the quantizer.

    Those registered when this module is loaded have theirs; one that comes later is decorated with it.
    """
    name = quantizer.__name__.rstrip("_")
    if name not in {one.by for one in Rounded.__subclasses__()}:
        facts = {"by": name, "__doc__": quantizer.__doc__, "__module__": __name__}
        made: Any = dataclass(frozen=True)(type(name, (Rounded,), facts))
        globals()[name] = register("rewrite")(made)  # where a process that is given one finds it
    return quantizer


for _quantizer in entries("quantizer").values():
    method(_quantizer)
