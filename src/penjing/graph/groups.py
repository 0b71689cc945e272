"""Groups of weights that leave a structure behind when they are zero: filters, channels, places of a kernel, blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from penjing.core.sites import Site, Slot
from penjing.graph.graph import Graph

Tensors: TypeAlias = Mapping[str, Tensor]

KINDS = ("shapes", "channels", "filters", "depth")
"""What a group may be; those that lie inside others come first."""


@dataclass(frozen=True, eq=False)
class Groups:
    """The groups of one kind at one place: a site, a kernel, a block.

    ``pieces`` name a parameter each and hold the positions in it, flattened, that the groups own, [groups, each].
    ``spared`` is how many groups, the largest, a penalty leaves alone, since something must stay.
    """

    kind: str
    where: str
    pieces: tuple[tuple[str, Tensor], ...]
    spared: int = 0

    @property
    def each(self) -> int:
        """How many weights a group has."""
        return sum(index.shape[1] for _, index in self.pieces)

    def norms(self, parameters: Tensors) -> Tensor:
        """Return the L2 norm of each group, [groups]."""
        squares = [parameters[name].detach().reshape(-1)[index].square().sum(1) for name, index in self.pieces]
        return torch.stack(squares).sum(0).sqrt()

    def empty(self, parameters: Tensors) -> Tensor:
        """Tell which groups are zero to the last bit, [groups]."""
        any_left = [(parameters[name].detach().reshape(-1)[index] != 0).any(1) for name, index in self.pieces]
        return ~torch.stack(any_left).any(0)

    def to(self, device: torch.device) -> Groups:
        """Return the same with its positions on a device."""
        return Groups(self.kind, self.where, tuple((n, i.to(device)) for n, i in self.pieces), self.spared)

    @torch.no_grad()
    def shrink(self, parameters: Tensors, by: float) -> None:
        """Move every group towards zero by this distance, in place; what is nearer becomes zero.

        That is the proximal operator of ``by`` times the sum of the norms: w ← w max(0, 1 - by / ‖w‖).
        """
        norms = self.norms(parameters)
        scale = (1 - by / norms.clamp_min(1e-30)).clamp_min(0)
        scale[norms.topk(self.spared).indices] = 1.0
        self.scale(parameters, scale)

    @torch.no_grad()
    def scale(self, parameters: Tensors, factors: Tensor) -> None:
        """Multiply every group by its factor, [groups], in place."""
        for name, index in self.pieces:
            whole = parameters[name].detach().reshape(-1).clone()
            whole[index] = whole[index] * factors.unsqueeze(1).to(whole)
            parameters[name].copy_(whole.view(parameters[name].shape))


def groups_of(
    graph: Graph, kind: str, sites: Sequence[Site], blocks: Sequence[str], parameters: Tensors
) -> list[Groups]:
    """Return the groups of a kind.

    ``filters``: for each unit of each site what writes it, everywhere, with its bias and the scale and shift of its
    normalisation, in which its size could hide otherwise. ``channels``: for each unit the weights that read it.
    ``shapes``: for each channel and place of a kernel the weights of all filters there, a column of the matrix that
    the convolution is. ``depth``: for each block all that it alone holds.
    """
    if kind == "depth":
        return [_block(graph, name, parameters) for name in blocks]
    if kind == "shapes":
        names = dict.fromkeys(layer.weight for layer in graph.layers if len(layer.kernel) > 0 and layer.weight)
        return [
            Groups(kind, name, ((name, torch.arange(w.numel()).view(w.shape[0], -1).T.contiguous()),))
            for name in names
            if (w := parameters[name]).dim() > 2 and w[0, 0].numel() > 1
        ]
    roles = ("in",) if kind == "channels" else ("out", "tied")
    found = []
    for site in sites:
        pieces = [
            piece(slot, parameters[slot.tensor], site) for slot in site.slots_with(*roles) if slot.tensor in parameters
        ]
        if pieces:
            found.append(Groups(kind, site.name, tuple(pieces), spared=site.fewest))
    return found


def margins_of(crops: Sequence[Site], parameters: Tensors) -> list[Groups]:
    """Return one group, of kind ``kernels``, for each crop of a kernel: all weights that it takes away."""
    return [
        Groups("kernels", site.name, tuple(piece(slot, parameters[slot.tensor], site) for slot in site.slots))
        for site in crops
    ]


def piece(slot: Slot, tensor: Tensor, site: Site) -> tuple[str, Tensor]:
    """Return the positions, in a parameter flattened, that each unit of a site owns by a slot, [units, each]."""
    places = torch.arange(tensor.numel()).view(tensor.shape if slot.axis >= 0 else (-1,))
    rows = places.movedim(max(slot.axis, 0), 0)[torch.from_numpy(slot.index)].reshape(len(slot.index), -1)
    order = torch.from_numpy(slot.unit).argsort(stable=True)
    return slot.tensor, rows[order].reshape(site.size, -1)


def _block(graph: Graph, name: str, parameters: Tensors) -> Groups:
    mine = [n for n, holders in graph.held.items() if holders == {name} and n in parameters]
    return Groups("depth", name, tuple((n, torch.arange(parameters[n].numel()).view(1, -1)) for n in mine))
