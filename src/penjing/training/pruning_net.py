"""A network that writes the weights of another one for any choice of widths."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from penjing.core.sites import Site
from penjing.core.units import Ints, Kept
from penjing.graph.gates import closed, fold
from penjing.graph.graph import Graph

MOST = 2**24
"""Numbers that the second layer of a generator holds at most; for large weights it has fewer hidden units."""

SCALES = torch.linspace(0.10, 1.00, 31).tolist()
"""Shares of a site's units that are drawn: 0.10, 0.13, ... 1.00."""


class PruningNet(nn.Module):
    """A traced network whose convolutions' weights two linear layers each write, given the widths around them.

    A generator reads, of each site whose units its convolution reads or writes, the share that stays, and writes the
    whole weight, of which those parts count that are kept: of each site the first units of ``orders``. In training mode
    every forward draws the widths anew, each site's uniformly of 31 scales. Linear layers, biases and the scale and
    shift of batch norm are shared by all widths and trained. At the beginning the weights written are the network's.

    Units that do not stay are set to zero where layers read them, which computes the same as the network cut.

    Paper: Liu et al., MetaPruning, ICCV 2019, section 3.1.
    Differs: there all weights begin at random, and each width has a batch norm of its own without scale and shift;
    here one serves all, to be recalibrated before widths are judged. Generators of large weights have fewer hidden
    units than ``hidden``.
    """

    def __init__(
        self, model: nn.Module, graph: Graph, sites: Sequence[Site], orders: Mapping[str, Ints], hidden: int = 32
    ) -> None:
        super().__init__()
        self.network = copy.deepcopy(model)
        parameters = dict(self.network.named_parameters(remove_duplicate=False))
        self._graph, self._sites, self._orders = graph.without_program(), list(sites), dict(orders)
        self._around: dict[str, list[int]] = {}
        for layer in graph.layers:
            if layer.weight in parameters and parameters[layer.weight].dim() > 2:
                units = np.concatenate([layer.in_units, layer.out_units])
                near = [i for i, site in enumerate(self._sites) if np.isin(units, site.ids).any()]
                self._around[layer.weight] = sorted({*self._around.get(layer.weight, []), *near})
        self._around = {name: near for name, near in self._around.items() if near}
        self.generators = nn.ModuleList(
            _generator(len(near), parameters[name], hidden) for name, near in self._around.items()
        )
        for name in self._around:
            parameters[name].requires_grad_(False)
        # In a list, which hides it: it is no part of what is trained, only where masks are written.
        self._masks = [copy.deepcopy(model)]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the network computes with the weights written, for drawn widths in training mode."""
        return functional_call(self.network, self.weights(self.drawn() if self.training else {}), args, kwargs)

    def drawn(self) -> dict[str, Kept]:
        """Return a random choice, from the global generator, as dropout draws."""
        scales = [SCALES[i] for i in torch.randint(len(SCALES), (len(self._sites),)).tolist()]
        return {
            site.name: self._orders[site.name][: site.allowed(scale * site.size + 0.5)]
            for site, scale in zip(self._sites, scales, strict=True)
        }

    def weights(self, kept: Mapping[str, Kept]) -> dict[str, Tensor]:
        """Return the weights of a choice in the shapes of the whole network, zero where a unit that goes is read."""
        device = next(self.generators.parameters()).device
        masks = self._masks[0].to(device)
        shares = torch.tensor(
            [len(kept[site.name]) / site.size if site.name in kept else 1.0 for site in self._sites], device=device
        )
        with torch.no_grad():
            for parameter in masks.parameters():
                parameter.fill_(1.0)
        fold(masks, self._graph, {s.name: closed(s.size, kept[s.name]) for s in self._sites if s.name in kept})
        of = dict(masks.named_parameters(remove_duplicate=False))
        own = dict(self.network.named_parameters(remove_duplicate=False))
        read = {slot.tensor for site in self._sites for slot in site.slots_with("in")} - set(self._around)
        found = {name: own[name] * of[name] for name in sorted(read) if name in own}
        for (name, near), generator in zip(self._around.items(), self.generators, strict=True):
            found[name] = generator(shares[near]).view_as(own[name]) * of[name]
        return found

    @torch.no_grad()
    def written(self, kept: Mapping[str, Kept]) -> nn.Module:
        """Return a copy of the network, whole in shape, that has the weights of a choice."""
        network = copy.deepcopy(self.network)
        parameters = dict(network.named_parameters(remove_duplicate=False))
        for name, weight in self.weights(kept).items():
            parameters[name].copy_(weight)
            parameters[name].requires_grad_(True)
        return network


def _generator(shares: int, weight: Tensor, hidden: int) -> nn.Sequential:
    """Return two linear layers that write a weight, at first the one there is."""
    units = max(1, min(hidden, MOST // weight.numel()))
    last = nn.Linear(units, math.prod(weight.shape))
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(weight.flatten())
    return nn.Sequential(nn.Linear(shares, units), nn.ReLU(), last)
