"""Units that zeros have left dead: nothing reads them any more, or they read nothing and are constant.

The second kind is worth its constant, which moves into the bias of what reads it, or into the mean of the batch norm
behind that. Where it cannot move without a difference, as before a convolution with padding, the unit stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from penjing.core.modes import modes_kept
from penjing.core.sites import Site
from penjing.graph.graph import Graph
from penjing.graph.groups import Groups, piece
from penjing.graph.proof import random_example
from penjing.graph.tap import Tap
from penjing.graph.views import View, views_of

STEADY = 1e-6
"""What a constant may vary by, relative to its size: vectorised and single elements are rounded differently."""


@dataclass(frozen=True, eq=False)
class Dead:
    """The dead units of the sites, [units] by name, and the constants of those that are not zero.

    ``moved`` maps a layer's position to what its sums lose without the dead units of each site, [channels] by site and
    unit; ``homes`` to where that can move.
    """

    units: Mapping[str, Tensor]
    moved: Mapping[int, Mapping[tuple[str, int], Tensor]] = field(default_factory=dict)
    homes: Mapping[int, tuple[str, int]] = field(default_factory=dict)


@torch.no_grad()
def dead_units(model: nn.Module, graph: Graph) -> Dead:
    """Return the units of channel sites that may go without any change of what the network computes.

    ``unheard`` ones are read by zeros alone. ``silent`` ones are written by zeros alone, so that what is read of them
    does not depend on the input, and can be told by running the network on any.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    handing = {layer.weight for layer in graph.layers if layer.follows}
    seen: dict[str, list[View]] = {}
    for views in views_of(graph).values():
        for view in views:
            if not view.written:
                seen.setdefault(view.site.name, []).append(view)
    units, silent = {}, {}
    for site in graph.sites:
        read = _pieces(site, "in", parameters, ())
        # Every reader must be known by its weight, or hand the units on to one that is.
        readers = {layer.weight for _, layer in graph.layers_reading(site)} - handing
        if read is None or readers != {name for name, _ in read.pieces} or site.name not in seen:
            continue
        units[site.name] = read.empty(parameters).cpu()
        written = _pieces(site, "out", parameters, handing)
        if written is not None and bool((one := written.empty(parameters).cpu() & ~units[site.name]).any()):
            silent[site.name] = one
    if not silent:
        return Dead(units)
    constants, homes, sums = _constants(model, graph), homes_of(model, graph), dict[int, Tensor]()
    moved: dict[int, dict[tuple[str, int], Tensor]] = {}
    for name, candidates in silent.items():
        for i in {view.layer for view in seen[name]} & homes.keys():
            weight = parameters[graph.layers[i].weight].detach()
            sums[i] = weight.flatten(2).sum(2) if weight.dim() > 2 else weight
        for unit in candidates.nonzero()[:, 0].tolist():
            shifts = _shifts(graph, seen[name], unit, constants, sums)
            if shifts is not None:
                units[name][unit] = True
                for i, shift in shifts.items():
                    moved.setdefault(i, {})[name, unit] = shift
    return Dead(units, moved, homes)


def _pieces(site: Site, role: str, parameters: Mapping[str, Tensor], without: object) -> Groups | None:
    """Return the weights of each unit in this role; None where there are none, or units are of unequal size."""
    slots = [slot for slot in site.slots_with(role) if slot.tensor not in without]  # type: ignore[operator]
    if not slots or any(slot.tensor not in parameters or len(slot.index) % site.size for slot in slots):
        return None
    return Groups(role, site.name, tuple(piece(slot, parameters[slot.tensor], site) for slot in slots))


def _constants(model: nn.Module, graph: Graph) -> dict[int, tuple[Tensor, Tensor]]:
    """Return, for each layer, what it reads of each channel, and whether that is the same always, [channels] each."""
    low: dict[int, Tensor] = {}
    high: dict[int, Tensor] = {}

    def read(i: int, x: Tensor) -> Tensor:
        rows = x.movedim(graph.reading_dims[i], -1).reshape(-1, x.shape[graph.reading_dims[i]])
        least, most = rows.amin(0), rows.amax(0)
        low[i] = torch.minimum(low[i], least) if i in low else least
        high[i] = torch.maximum(high[i], most) if i in high else most
        return x

    own = next(p.dtype for p in model.parameters() if p.is_floating_point())
    with modes_kept(model):
        model.eval()
        for args, kwargs in (graph.example, random_example(graph, 0, own)):
            with Tap(model, graph, read):
                model(*args, **kwargs)
    size = {i: torch.maximum(low[i].abs(), high[i].abs()) for i in low}
    return {i: (low[i], high[i] - low[i] <= STEADY * size[i]) for i in low}


def _shifts(
    graph: Graph,
    views: list[View],
    unit: int,
    constants: Mapping[int, tuple[Tensor, Tensor]],
    sums: Mapping[int, Tensor],
) -> dict[int, Tensor] | None:
    """Return what a silent unit adds to what each layer writes, [channels]; None where that cannot move elsewhere.

    ``sums`` are the weights of layers that it can move from, added up over their kernels.
    """
    found: dict[int, Tensor] = {}
    for view in views:
        if view.layer not in constants:
            return None
        value, steady = constants[view.layer]
        each = len(view.index) // view.site.size
        index = view.index[unit * each : (unit + 1) * each].to(value.device)
        if not bool(steady[index].all()):
            return None
        if bool((value[index] == 0).all()):
            continue
        if view.handed_on or view.layer not in sums:
            return None
        weight, groups = sums[view.layer], graph.layers[view.layer].groups
        if groups == 1:
            found[view.layer] = weight[:, index] @ value[index]
        else:
            every = torch.zeros_like(value).index_copy(0, index, value[index]).view(groups, -1)
            found[view.layer] = torch.einsum("goi,gi->go", weight.unflatten(0, (groups, -1)), every).flatten()
    return found


def homes_of(model: nn.Module, graph: Graph) -> dict[int, tuple[str, int]]:
    """Return, by layer, the tensor that a constant in what it writes can move into, and by which sign.

    That is its bias, or the mean of the batch norm that alone reads it. A convolution with padding sums fewer constants
    at its borders, and a weight, bias or mean that serves twice would have to take in two.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    nodes = {node.name: node for node in graph.program.nodes}
    stands = [node for node in graph.program.nodes if node.op == "placeholder"]
    names = dict(zip(stands, graph.program.names, strict=True))
    once = {name for node, name in names.items() if name is not None and len(node.users) == 1}
    found: dict[int, tuple[str, int]] = {}
    for i, layer in enumerate(graph.layers):
        owner = modules.get(layer.weight.rpartition(".")[0])
        if not isinstance(owner, nn.Linear | _ConvNd) or isinstance(owner, _ConvTransposeNd) or layer.follows:
            continue
        padded = any(p != 0 for p in layer.padding) and any(k > 1 for k in layer.kernel)
        if padded or layer.weight not in once:
            continue
        if layer.bias is not None:
            if layer.bias in once:
                found[i] = layer.bias, 1
            continue
        readers = list(nodes[graph.nodes[i]].users)
        if len(readers) == 1 and "batch_norm" in str(readers[0].target) and len(readers[0].args) > 3:
            mean = names.get(readers[0].args[3])  # type: ignore[arg-type]
            if mean in once:
                found[i] = str(mean), -1
    return found


@torch.no_grad()
def move(model: nn.Module, dead: Dead, kept: Mapping[str, Tensor]) -> None:
    """Move, in place, the constants of the dead units that ``kept``, [units] by site, does not keep."""
    tensors = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    for i, shifts in dead.moved.items():
        home, sign = dead.homes[i]
        for (site, unit), shift in shifts.items():
            if site in kept and not bool(kept[site][unit]):
                tensors[home].add_(sign * shift.to(tensors[home].dtype))
