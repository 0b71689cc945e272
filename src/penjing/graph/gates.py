"""Gates: factors on the units of sites, wherever a layer reads them, while the user's own forward runs.

A gate of one leaves a unit as it is, a gate of zero removes it; what is learned in between can be folded into the
weights that read the unit. Gates stand behind normalisation and activation, where scale means something.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from penjing.core.errors import PlanError
from penjing.core.units import Kept
from penjing.graph.graph import Graph
from penjing.graph.tap import Tap
from penjing.graph.views import View, gated, views_of

Factors: TypeAlias = Callable[[int], Mapping[str, Tensor]]
"""Given the number of samples of a batch: the gates by site, [units], or [samples, units] where each has its own."""


class Gates:
    """Gates on some sites of a network; ``attach`` sets them into its forward.

    Raises: PlanError for a site that no layer reads, which no gate can silence.
    """

    def __init__(self, graph: Graph, sites: Collection[str]) -> None:
        self.graph = graph.without_program()
        self.views: dict[int, list[View]] = {}
        for i, here in gated(views_of(graph)).items():
            if mine := [view for view in here if view.site.name in sites and not view.written]:
                self.views[i] = mine
        found = {view.site.name for here in self.views.values() for view in here}
        for name in sites:
            if name not in found:
                raise PlanError(f"No layer reads {name}, so no gate can stand on it; leave it out.")

    def attach(self, model: nn.Module, factors: Factors) -> list[RemovableHandle]:
        """Multiply by ``factors`` in every forward of ``model`` until the handles are removed."""
        taps: list[Tap] = []

        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            batch = next(x for x in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor))
            now = factors(len(batch))
            # Made anew each time: another process has other parameters.
            tap = Tap(model, self.graph, lambda i, x: self._multiplied(i, x, now, len(batch)))
            taps.append(tap)
            tap.__enter__()

        def after(*_: Any) -> None:
            if taps:
                taps.pop().__exit__(None, None, None)

        return [
            model.register_forward_pre_hook(before, with_kwargs=True),
            model.register_forward_hook(after, always_call=True),
        ]

    def _multiplied(self, i: int, x: Tensor, factors: Mapping[str, Tensor], samples: int) -> Tensor:
        """Return what layer ``i`` reads, with every unit multiplied by its gate."""
        for view in self.views.get(i, ()):
            gate = factors[view.site.name].to(x.dtype)
            repeats = len(view.index) // view.site.size
            each = gate.repeat_interleave(repeats, dim=-1)
            every = each.new_ones(*each.shape[:-1], x.shape[view.dim]).index_copy(-1, view.index.to(x.device), each)
            rows = x.shape[0] if x.dim() > -view.dim else 1
            if every.dim() == 2 and rows != samples:  # a forward may fold windows or time into the samples
                every = every.repeat_interleave(rows // samples, dim=0) if rows % samples == 0 else every.mean(0)
            shape = [1] * x.dim()
            shape[view.dim] = every.shape[-1]
            if every.dim() == 2 and x.dim() > -view.dim:
                shape[0] = every.shape[0]
            x = x * every.reshape(shape)
        return x


@torch.no_grad()
def fold(model: nn.Module, graph: Graph, gates: Mapping[str, Tensor]) -> None:
    """Multiply, in place, the weights that read each unit by its gate, [units]: the network computes as with gates set.

    A depthwise layer, which hands its units on, stays as it is; a grouped one that reads a unit a group is scaled
    group by group.
    """
    tensors = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers())
    for site in graph.sites:
        for slot in site.slots_with("in") if site.name in gates else ():
            weight = tensors[slot.tensor]
            factors = gates[site.name].to(weight)[torch.from_numpy(slot.unit).to(weight.device)]
            index = torch.from_numpy(slot.index).to(weight.device)
            whole = weight.flatten() if slot.axis == -1 else weight
            every = whole.new_ones(whole.shape[max(slot.axis, 0)]).index_copy(0, index, factors)
            shape = [-1 if axis == max(slot.axis, 0) else 1 for axis in range(whole.dim())]
            weight.mul_(every.view(shape).expand(whole.shape).reshape(weight.shape))
    for i, views in gated(views_of(graph)).items():
        layer = graph.layers[i]
        for view in views:
            slots = [slot.tensor for slot in view.site.slots_with("in")]
            if view.site.name in gates and not view.written and not view.handed_on and layer.weight not in slots:
                weight = tensors[layer.weight]
                factors = gates[view.site.name].to(weight).repeat_interleave(len(view.index) // view.site.size)
                every = weight.new_ones(layer.in_channels).index_copy(0, view.index.to(weight.device), factors)
                of_group = every.view(layer.groups, 1, -1).expand(-1, weight.shape[0] // layer.groups, -1)
                weight.mul_(of_group.reshape(weight.shape[0], -1, *[1] * (weight.dim() - 2)))


def closed(size: int, kept: Kept) -> Tensor:
    """Return the gates of a site that keep these units and silence the others, [units].

    >>> import numpy as np
    >>> closed(4, np.array([0, 3]))
    tensor([1., 0., 0., 1.])
    """
    gate = torch.zeros(size)
    gate[torch.from_numpy(kept)] = 1
    return gate
