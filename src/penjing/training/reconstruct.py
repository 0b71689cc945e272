"""One-shot reconstruction: refit each layer of a compressed network so that it writes what the original wrote.

Layer by layer, in the order of execution, every convolution and linear layer gets the weights that bring what it
writes closest, in least squares over unlabelled samples, to what the original has at the same place. It is fitted on
what it really reads, behind the layers refitted before it, so that it also makes up for their errors. Where its output
is added to something, as at the end of a residual branch, it is fitted to the original's sum less the other summand.

The refit of one layer on sampled positions is that of He et al., Channel Pruning for Accelerating Very Deep Neural
Networks, ICCV 2017, section 3.2, with the residual branch of its section 3.3. It differs: a ridge towards the weights
there were instead of none, a free intercept, the batch norm behind the layer as part of what is fitted, and zeros held.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from penjing.core import console
from penjing.core.errors import TrainError
from penjing.core.layers import Layer
from penjing.core.modes import modes_kept
from penjing.core.pausing import Pausing
from penjing.core.random import torch_stream
from penjing.core.units import Kept, is_gone
from penjing.graph.chains import as_last_stages
from penjing.graph.graph import Graph
from penjing.graph.joints import Joints
from penjing.graph.kernels import as_it_is
from penjing.graph.patches import by_group, by_position, drawn, patches, picked
from penjing.training.least_squares import Moments, damped, solve
from penjing.training.recalibrate import batch_norms
from penjing.training.state import Snapshot, device_of
from penjing.training.surgeon import Surgeon

FAINT = 1e-3
"""A channel whose batch-norm scale is below this share of its layer's largest has no target worth fitting."""

SAME = 1e-3
"""How far what is computed from a layer's patches may be from what it wrote, relative, before it is left alone."""


def reconstruct(
    original: nn.Module,
    compressed: nn.Module,
    graph: Graph,
    kept: Mapping[str, Kept],
    batches: Sequence[Tensor],
    *,
    without: Collection[str] = (),
    ridge: float = 1e-2,
    seed: int = 0,
    surgeon: Surgeon | None = None,
) -> list[str]:
    """Refit the layers of ``compressed`` in place and return the names of those refitted.

    ``graph`` is that of ``original``, and ``kept`` the units by site that ``compressed`` still has; ``without`` names
    the blocks that were taken out of it. A weight that is zero stays zero, unless a ``surgeon`` chooses anew which are.
    ``ridge`` holds weights to where they were, as a share of the mean power of what the layer reads. A layer whose
    weight or batch norm serves twice, or whose output is no plain product of patches and weight (a transposed
    convolution, a weight computed on the fly), or that runs over positions of which some are gone, is left as it is.

    Of a layer that is a chain of factors now, the last is refitted to what the first ones hand it: the asymmetric
    reconstruction of Zhang et al., Accelerating Very Deep Convolutional Networks, PAMI 2016, section 3.3, with the
    other factors held. One whose last factors lie side by side stays as it is.

    All batches run side by side, each stopping at every layer until it is refitted: one forward of either network in
    all. In memory are the activations of all samples where they stopped, and the original's targets at all layers.

    Raises: TrainError when there is nothing to fit to, or a value is not finite; the model is then as it was.
    """
    if not batches:
        raise TrainError("Reconstruction needs unlabelled samples; got none.")
    gone = graph.gone(kept)
    before = Snapshot([*compressed.parameters(), *compressed.buffers()])
    refitted = []
    try:
        with ExitStack() as stack:
            stack.enter_context(modes_kept(original))
            stack.enter_context(modes_kept(compressed))
            stack.enter_context(torch.no_grad())
            original.eval()
            compressed.eval()
            targets = _targets(original, graph, batches, seed)
            absent = {i for name in without for i in graph.blocks[name].layers}
            graph, orders = as_last_stages(graph, compressed)
            own = dict(compressed.named_parameters(remove_duplicate=False))
            absent |= {i for i, layer in enumerate(graph.layers) if layer.weight and layer.weight not in own}
            there = {i: target for i, target in targets.items() if i not in absent}
            places = _places(compressed, graph, gone, there, orders)
            joints = partial(Joints, compressed, graph, absent=absent, orders=orders)
            works = [partial(_forward, compressed, graph, places, joints, b, x) for b, x in enumerate(batches)]
            forwards = [stack.enter_context(Pausing(work)) for work in works]
            for _ in console.track(places, "reconstructing"):
                heard = [told for forward in forwards if (told := forward.resume()) is not None]
                if len(heard) == len(batches):
                    place = places[heard[0].layer]
                    place.refit(place.moments(heard), ridge, surgeon)
                    refitted.append(place.layer.name)
    except BaseException:
        before.restore()
        raise
    return refitted


@dataclass
class _Heard:
    """What one batch tells about one layer: ``read`` [rows, groups, in], and the other summand [rows, channels]."""

    layer: int
    read: Tensor
    other: Tensor | None


def _forward(
    model: nn.Module,
    graph: Graph,
    places: Mapping[int, _Place],
    joints: Callable[..., Joints],
    b: int,
    x: Tensor,
    tell: Callable[[_Heard], None],
) -> None:
    """Run one batch, and wait at every place until it has been refitted."""
    patched: dict[int, Tensor] = {}

    def read(i: int, x: Tensor) -> None:
        if i in places:
            target, layer = places[i].target, places[i].layer
            patched[i] = patches(x, graph.reading_dims[i], layer, target.picks[b].to(x.device))
            if not target.summed:
                tell(_Heard(i, patched.pop(i), None))

    def summed(i: int, y: Tensor, other: Tensor) -> bool:
        if i not in patched:
            return False
        table = by_position(other, graph.writing_dims[i])
        tell(_Heard(i, patched.pop(i), picked(table, places[i].target.picks[b].to(other.device))))
        return True

    with torch.no_grad(), joints(read=read, summed=summed):
        model(x.to(device_of(model)))


@dataclass
class _Target:
    """What the original has where a layer's output has been normalised and summed, at sampled positions.

    ``rows`` are [samples x positions, channels], ``picks`` the positions [samples, positions], one a batch. ``norm``
    names the batch norm behind the layer, and ``summed`` says that a sum follows. ``plain`` says that weight times
    patches is what the layer writes.
    """

    rows: list[Tensor] = field(default_factory=list)
    picks: list[Tensor] = field(default_factory=list)
    norm: str | None = None
    summed: bool = False
    plain: bool = False


def _targets(model: nn.Module, graph: Graph, batches: Sequence[Tensor], seed: int) -> dict[int, _Target]:
    """Run the original once and keep the targets of all layers; of a layer that runs twice, none.

    A layer that more than its batch norm reads is fitted to what it writes itself.
    """
    targets: dict[int, _Target] = {}
    known = set(batch_norms(model))
    norms = {id(module.running_mean): name for name, module in model.named_modules() if module in known}
    generator = torch_stream(seed, "reconstruct/positions")
    elsewhere: set[int] = set()

    read: dict[int, Tensor] = {}

    def wrote(i: int, y: Tensor) -> None:
        table = by_position(y, graph.writing_dims[i])
        picks = drawn(len(table), table.shape[1], generator).sort(1).values.to(y.device)
        target = targets.setdefault(i, _Target())
        target.picks.append(picks)
        rows = picked(table, picks)
        target.rows.append(rows.cpu())
        if len(target.rows) == 1:
            target.plain = _explained(model, graph, i, read[i], picks, rows)

    def moved(i: int, y: Tensor) -> None:
        table = by_position(y, graph.writing_dims[i])
        targets[i].rows[-1] = picked(table, targets[i].picks[-1]).cpu()

    def normed(i: int, y: Tensor, mean: Tensor | None) -> None:
        if i not in graph.normed:
            elsewhere.add(i)
            return
        targets[i].norm = norms.get(id(mean))
        targets[i].plain &= targets[i].norm is not None  # the statistics of a function are not ours to refit
        moved(i, y)

    def summed(i: int, y: Tensor, other: Tensor) -> None:
        if i not in elsewhere:
            targets[i].summed = True
            moved(i, y + other)

    device = device_of(model)
    for x in batches:
        with Joints(model, graph, read=read.__setitem__, wrote=wrote, normed=normed, summed=summed):
            model(x.to(device))
        read.clear()
    return targets


def _explained(model: nn.Module, graph: Graph, i: int, read: Tensor, picks: Tensor, wrote: Tensor) -> bool:
    """Tell whether a layer has a weight of its own whose product with its patches, and the bias, is what it wrote."""
    layer, parameters = graph.layers[i], dict(model.named_parameters(remove_duplicate=False))
    weight, bias = parameters.get(layer.weight), parameters.get(layer.bias or "")
    own = {layer.weight, layer.bias} - {None}
    users = [other for other in graph.layers if own & {other.weight, other.bias}]
    shape = (layer.out_channels, layer.in_channels // layer.groups, *layer.kernel)
    if weight is None or weight.shape != shape or layer.transposed or len(users) > 1:
        return False
    if (layer.bias is None) != (bias is None):
        return False
    product = torch.einsum("ngi,gio->ngo", patches(read, graph.reading_dims[i], layer, picks), by_group(weight, layer))
    product = product.flatten(1) if bias is None else product.flatten(1) + bias
    return bool((product - wrote).abs().max() <= SAME * wrote.abs().max())


@dataclass
class _Place:
    """A layer of the compressed network that can be refitted, the batch norm behind it, and its target.

    ``stays`` are the channels of the original that the layer still writes, in its own order, and ``behind`` where each
    is in the norm and the sum behind it: elsewhere only if its chain ends by ordering them.
    """

    layer: Layer
    target: _Target
    stays: Tensor
    behind: Tensor
    weight: nn.Parameter
    bias: nn.Parameter | None
    norm: _BatchNorm | None

    def moments(self, heard: Sequence[_Heard]) -> Moments:
        """Gather what the layer reads and should write; the target is let go of."""
        moments = Moments()
        for told, rows in zip(heard, self.target.rows, strict=True):
            wanted = rows.to(told.read.device)[:, self.stays]
            wanted = wanted if told.other is None else wanted - told.other[:, self.behind]
            moments.add(told.read.transpose(0, 1), wanted.unflatten(1, (self.layer.groups, -1)).transpose(0, 1))
        self.target.rows.clear()
        return moments

    def refit(self, moments: Moments, ridge: float, surgeon: Surgeon | None = None) -> None:
        """Set the weight, and the bias or the batch norm behind it.

        The batch norm gets the statistics that the refitted layer has, and the scale and shift under which it gives
        the fitted values, so that it means the same in training.

        Raises: TrainError when what was read or wanted is not finite.
        """
        norm, old = self.norm, by_group(self.weight, self.layer).double()
        free = norm is not None or self.bias is not None
        covariance, cross = moments.covariances(free)
        read, wanted = moments.means(free)
        if not (covariance.isfinite().all() and cross.isfinite().all()):
            raise TrainError(f"{self.layer.name} reads or should write values that are not finite; check the samples.")
        scale = torch.ones_like(wanted)
        if norm is not None:
            assert norm.running_var is not None
            gain = torch.ones_like(norm.running_var) if norm.weight is None else norm.weight
            scale = (gain.double() / (norm.running_var.double() + norm.eps).sqrt())[self.behind].view_as(wanted)
        faint = scale.abs() <= FAINT * scale.abs().max()
        unscaled = cross / torch.where(faint, 1.0, scale)[:, None, :]

        def fit(prior: Tensor) -> Tensor:
            return torch.where(faint[:, None, :], prior, solve(covariance, unscaled, prior, ridge))

        if surgeon is not None:
            old = surgeon(self.layer, old, fit, damped(covariance, ridge), scale.square())
        fitted = fit(old)
        self.weight.copy_(fitted.mT.reshape(self.weight.shape))
        mean = torch.einsum("gi,gio->go", read, fitted)
        if norm is None:
            if self.bias is not None:
                self.bias.copy_((wanted - mean).flatten())
            return
        mean = mean if self.bias is None else mean + self.bias.view_as(mean)
        self._renorm(norm, mean, torch.einsum("gio,gij,gjo->go", fitted, covariance, fitted), wanted, scale, faint)

    def _renorm(
        self, norm: _BatchNorm, mean: Tensor, var: Tensor, wanted: Tensor, scale: Tensor, faint: Tensor
    ) -> None:
        """Let the batch norm map this mean to the wanted one, with the scale given."""
        assert norm.running_mean is not None and norm.running_var is not None

        def put(old: Tensor, new: Tensor, where: Tensor | None = None) -> None:
            flat = new.flatten().to(old.dtype)
            old[self.behind] = flat if where is None else torch.where(where.flatten(), old[self.behind], flat)

        if norm.weight is None:
            put(norm.running_mean, mean - wanted / scale)
            return
        put(norm.running_mean, mean)
        put(norm.running_var, var.clamp(min=0))
        put(norm.weight, scale * (var.clamp(min=0) + norm.eps).sqrt(), faint)
        put(norm.bias, wanted, faint)


def _places(
    model: nn.Module,
    graph: Graph,
    gone: NDArray[np.bool_],
    targets: Mapping[int, _Target],
    orders: Mapping[int, Tensor],
) -> dict[int, _Place]:
    """Return the layers that can be refitted by their position in the graph."""
    parameters, modules = dict(model.named_parameters(remove_duplicate=False)), dict(model.named_modules())
    served = Counter(target.norm for target in targets.values())
    places = {}
    for i, target in sorted(targets.items()):
        narrower = any(is_gone(span, gone).any() for span in graph.spans[i] if span is not None)
        if not target.plain or narrower or (target.norm is not None and served[target.norm] > 1):
            continue
        weight, bias = parameters.get(graph.layers[i].weight), parameters.get(graph.layers[i].bias or "")
        if weight is None:  # a chain that several layers end, or one that repeats channels
            continue
        layer = as_it_is(graph.layers[i].shrunk(gone), weight)
        stays = torch.from_numpy(~is_gone(graph.layers[i].out_units, gone)).nonzero()[:, 0].to(weight.device)
        if len(weight) != layer.out_channels:
            raise TrainError(
                f"{layer.name} writes {len(weight)} channels, and which of the original's they are is not known: they "
                "were cut together with ranks of a chain. Reconstruct before that cut, or factorise after it."
            )
        behind = orders[i].argsort() if i in orders else torch.arange(len(stays), device=weight.device)
        norm = modules[target.norm] if target.norm is not None else None
        if norm is not None and not isinstance(norm, _BatchNorm):  # it went into a collaborative layer
            continue
        places[i] = _Place(layer, target, stays[behind], behind, weight, bias, norm)
    return places
