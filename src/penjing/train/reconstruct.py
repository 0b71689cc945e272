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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from penjing.core import console
from penjing.core.errors import TrainError
from penjing.core.random import torch_stream
from penjing.core.types import Kept, Layer
from penjing.graph.graph import Graph, is_gone
from penjing.graph.joints import Joints
from penjing.train.least_squares import Moments, solve
from penjing.train.recalibrate import batch_norms
from penjing.train.state import Snapshot, device_of, modes_kept

POSITIONS = 64
"""How many output positions of one sample take part; neighbours tell nearly the same."""

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
    ridge: float = 1e-2,
    seed: int = 0,
) -> list[str]:
    """Refit the layers of ``compressed`` in place and return the names of those refitted.

    ``graph`` is that of ``original``, and ``kept`` the units by site that ``compressed`` still has. A weight that is
    zero stays zero. ``ridge`` holds weights to where they were, as a share of the mean power of what the layer reads.
    A layer whose weight or batch norm serves twice, or whose output is no plain product of patches and weight
    (a transposed convolution, a weight computed on the fly), is left as it is. Each layer costs a forward up to it.

    Raises: TrainError when there is nothing to fit to, or a value is not finite; the model is then as it was.
    """
    if not batches:
        raise TrainError("Reconstruction needs unlabelled samples; got none.")
    gone = graph.gone(kept)
    device = device_of(compressed)
    before = Snapshot([*compressed.parameters(), *compressed.buffers()])
    refitted = []
    try:
        with modes_kept(original), modes_kept(compressed), torch.no_grad():
            original.eval()
            compressed.eval()
            targets = _targets(original, graph, batches, seed)
            for i, layer in console.track(list(enumerate(graph.layers)), "reconstructing"):
                target = targets.pop(i, None)
                place = _Place.find(compressed, graph, i, layer.shrunk(gone), target)
                if target is None or place is None:
                    continue
                stays = torch.from_numpy(~is_gone(layer.out_units, gone)).nonzero()[:, 0]
                moments = place.listen([x.to(device) for x in batches], target, stays)
                if moments is not None:
                    place.refit(moments, ridge)
                    refitted.append(layer.name)
    except BaseException:
        before.restore()
        raise
    return refitted


class _Stop(Exception):
    """The forward has shown what it was run for."""


@dataclass
class _Target:
    """What the original has where a layer's output has been normalised and summed, at sampled positions.

    ``rows`` are [samples x positions, channels], ``picks`` the positions [samples, positions], one a batch. ``norm``
    names the batch norm behind the layer, and ``summed`` says that a sum follows.
    """

    rows: list[Tensor] = field(default_factory=list)
    picks: list[Tensor] = field(default_factory=list)
    norm: str | None = None
    summed: bool = False


def _targets(model: nn.Module, graph: Graph, batches: Sequence[Tensor], seed: int) -> dict[int, _Target]:
    """Run the original once and keep the targets of all layers; of a layer that runs twice, none."""
    targets: dict[int, _Target] = {}
    known = set(batch_norms(model))
    norms = {id(module.running_mean): name for name, module in model.named_modules() if module in known}
    generator = torch_stream(seed, "reconstruct/positions")

    def wrote(i: int, y: Tensor) -> None:
        table = by_position(y, graph.writing_dims[i])
        draws = torch.rand(table.shape[:2], generator=generator)
        picks = draws.argsort(1)[:, :POSITIONS].sort(1).values.to(y.device)
        target = targets.setdefault(i, _Target())
        target.picks.append(picks)
        target.rows.append(picked(table, picks))

    def moved(i: int, y: Tensor) -> None:
        table = by_position(y, graph.writing_dims[i])
        targets[i].rows[-1] = picked(table, targets[i].picks[-1])

    def normed(i: int, y: Tensor, mean: Tensor | None) -> None:
        targets[i].norm = norms.get(id(mean))
        moved(i, y)

    def summed(i: int, y: Tensor, other: Tensor) -> None:
        targets[i].summed = True
        moved(i, y + other)

    device = device_of(model)
    for x in batches:
        with Joints(model, graph, wrote=wrote, normed=normed, summed=summed):
            model(x.to(device))
    return targets


@dataclass
class _Place:
    """A layer of the compressed network that can be refitted, and the batch norm behind it."""

    model: nn.Module
    graph: Graph
    index: int
    layer: Layer
    weight: nn.Parameter
    bias: nn.Parameter | None
    norm: _BatchNorm | None

    @classmethod
    def find(cls, model: nn.Module, graph: Graph, i: int, layer: Layer, target: _Target | None) -> _Place | None:
        """Return the place, or None where the layer is of another form, or shares its parameters."""
        parameters = dict(model.named_parameters(remove_duplicate=False))
        weight, bias = parameters.get(layer.weight), parameters.get(layer.bias or "")
        if target is None or weight is None or (layer.bias is None) != (bias is None) or layer.transposed:
            return None
        shape = (layer.out_channels, layer.in_channels // layer.groups, *layer.kernel)
        alone = sum(other.weight == layer.weight or (bias is not None and other.bias == layer.bias)
                    for other in graph.layers) == 1  # fmt: skip
        if weight.shape != shape or not alone or not weight.is_floating_point():
            return None
        norm = dict(model.named_modules()).get(target.norm) if target.norm else None
        return cls(model, graph, i, layer, weight, bias, norm)

    def listen(self, batches: Sequence[Tensor], target: _Target, stays: Tensor) -> Moments | None:
        """Run the model up to the layer, or the sum behind it, and gather what it reads and should write.

        Returns None when the layer is not heard, or writes something else than its weight times its patches.
        """
        moments = Moments()
        for x, rows, picks in zip(batches, target.rows, target.picks, strict=True):
            heard = self._run(x, picks.to(x.device), target.summed)
            if "patches" not in heard or "written" not in heard or target.summed != ("other" in heard):
                return None
            patches, wanted = heard["patches"], rows.to(x.device)[:, stays.to(x.device)]
            if not moments.rows and not self._explains(patches, heard["written"]):
                return None
            wanted = wanted - heard["other"] if target.summed else wanted
            moments.add(patches.transpose(0, 1), wanted.unflatten(1, (self.layer.groups, -1)).transpose(0, 1))
        return moments

    def _run(self, x: Tensor, picks: Tensor, summed: bool) -> dict[str, Tensor]:
        heard: dict[str, Tensor] = {}

        def read(i: int, x: Tensor) -> None:
            if i == self.index:
                heard["patches"] = patches(x, self.graph.reading_dims[i], self.layer, picks)

        def wrote(i: int, y: Tensor) -> None:
            if i == self.index:
                heard["written"] = picked(by_position(y, self.graph.writing_dims[i]), picks)
                if not summed:
                    raise _Stop

        def added(i: int, y: Tensor, other: Tensor) -> None:
            if i == self.index:
                heard["other"] = picked(by_position(other, self.graph.writing_dims[i]), picks)
                raise _Stop

        try:
            with Joints(self.model, self.graph, read=read, wrote=wrote, summed=added):
                self.model(x)
        except _Stop:
            pass
        return heard

    def _explains(self, patches: Tensor, written: Tensor) -> bool:
        """Tell whether weight times patches, and the bias, are what the layer wrote."""
        product = torch.einsum("ngi,gio->ngo", patches, self._by_group(self.weight)).flatten(1)
        product = product if self.bias is None else product + self.bias
        return bool((product - written).abs().max() <= SAME * written.abs().max())

    def _by_group(self, weight: Tensor) -> Tensor:
        """Return a weight as [groups, in, out]."""
        return weight.detach().reshape(self.layer.groups, self.layer.out_channels // self.layer.groups, -1).mT

    def refit(self, moments: Moments, ridge: float) -> None:
        """Set the weight, and the bias or the batch norm behind it.

        The batch norm gets the statistics that the refitted layer has, and the scale and shift under which it gives
        the fitted values, so that it means the same in training.

        Raises: TrainError when what was read or wanted is not finite.
        """
        norm, old = self.norm, self._by_group(self.weight).double()
        free = norm is not None or self.bias is not None
        covariance, cross = moments.covariances(free)
        read, wanted = moments.means(free)
        if not (covariance.isfinite().all() and cross.isfinite().all()):
            raise TrainError(f"{self.layer.name} reads or should write values that are not finite; check the samples.")
        scale = torch.ones_like(wanted)
        if norm is not None:
            assert norm.running_var is not None
            gain = torch.ones_like(norm.running_var) if norm.weight is None else norm.weight
            scale = (gain.double() / (norm.running_var.double() + norm.eps).sqrt()).view_as(wanted)
        faint = scale.abs() <= FAINT * scale.abs().max()
        fitted = solve(covariance, cross / torch.where(faint, 1.0, scale)[:, None, :], old, ridge)
        fitted = torch.where(faint[:, None, :], old, fitted)
        self.weight.copy_(fitted.mT.reshape(self.weight.shape))
        mean = torch.einsum("gi,gio->go", read, fitted)
        if norm is None:
            if self.bias is not None:
                self.bias.copy_((wanted - mean).flatten())
            return
        mean = mean if self.bias is None else mean + self.bias.view_as(mean)
        self._renorm(norm, mean, torch.einsum("gio,gij,gjo->go", fitted, covariance, fitted), wanted, scale, faint)

    def _renorm(
        self, norm: _BatchNorm, mean: Tensor, var: Tensor, wanted: Tensor, scale: Tensor,
        faint: Tensor,
    ) -> None:  # fmt: skip
        """Let the batch norm map this mean to the wanted one, with the scale given."""
        assert norm.running_mean is not None and norm.running_var is not None
        if norm.weight is None:
            norm.running_mean.copy_((mean - wanted / scale).flatten())
            return
        norm.running_mean.copy_(mean.flatten())
        norm.running_var.copy_(var.clamp(min=0).flatten())
        gain = scale * (var.clamp(min=0) + norm.eps).sqrt()
        norm.weight.copy_(torch.where(faint, norm.weight.view_as(gain), gain).flatten())
        norm.bias.copy_(torch.where(faint, norm.bias.view_as(gain), wanted).flatten())


def by_position(y: Tensor, dim: int) -> Tensor:
    """Return an activation with channels along ``dim`` as [samples, positions, channels]."""
    moved = y.movedim(dim, -1)
    return moved.flatten(1, -2) if moved.dim() > 2 else moved.unsqueeze(1)


def picked(table: Tensor, picks: Tensor) -> Tensor:
    """Return a table's rows [samples, positions, channels] at ``picks`` [samples, n], as [samples * n, channels]."""
    return table[torch.arange(len(table), device=table.device)[:, None], picks].flatten(0, 1)


def patches(x: Tensor, dim: int, layer: Layer, picks: Tensor) -> Tensor:
    """Return what a layer multiplies with its weight at the output positions ``picks`` [samples, n].

    Shapes: [samples * n, groups, channels of a group times kernel].
    """
    if not layer.kernel:
        rows = picked(by_position(x, dim), picks)
        return rows.view(len(rows), layer.groups, -1)
    x = F.pad(x, [p for padding in reversed(layer.padding) for p in (padding, padding)]).contiguous()
    n, channels, *size = x.shape
    by_sample, by_channel, *steps = x.stride()
    spans = [d * (k - 1) + 1 for d, k in zip(layer.dilation, layer.kernel, strict=True)]
    out = [(s - span) // t + 1 for s, span, t in zip(size, spans, layer.stride, strict=True)]
    windows = x.as_strided(
        (n, *out, channels, *layer.kernel),
        (by_sample, *(s * t for s, t in zip(steps, layer.stride, strict=True)), by_channel,
         *(s * d for s, d in zip(steps, layer.dilation, strict=True))),
    )  # fmt: skip
    places = torch.unravel_index(picks, out)
    rows = windows[(torch.arange(n, device=x.device)[:, None], *places)].flatten(0, 1)
    return rows.reshape(len(rows), layer.groups, -1)
