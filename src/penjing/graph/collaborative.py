"""Low-cost collaborative layers: a cheap map of what a convolution reads, by which its outputs are multiplied.

Where the map is zero the output is zero whatever the convolution computes there, so that it need not be computed. The
network stays an ordinary module: the convolution keeps its name and its weights, its batch norm moves into it, and the
ReLU that follows stays where the user's forward calls it, since ReLU(z) c = ReLU(z c) for a map c that is not negative.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import skip_init

from penjing.core.errors import PlanError, did_you_mean
from penjing.core.layers import Layer
from penjing.graph.blocks import take_out
from penjing.graph.graph import Graph
from penjing.graph.readers import Readers, norm_behind, only_reader

Kind = Literal["shared", "pointwise"]
"""One filter of the convolution's own size for all its outputs, or a 1x1 convolution with as many outputs."""

KINDS = ("shared", "pointwise")

RELUS = (torch.ops.aten.relu.default, torch.ops.aten.relu_.default)


@dataclass(frozen=True)
class Partner:
    """What a collaborative layer is made of: its kind, and the batch norm that stood behind the convolution."""

    kind: Kind
    norm: str


class Map(nn.Module):
    """A collaborative layer: ReLU(BN'(W' * x)), which begins as the constant 1.

    Shapes: x [n, in_channels of ``beside``, h, w] → [n, outputs, h', w'].
    """

    def __init__(self, beside: nn.Conv2d, outputs: int, **shape: Any) -> None:
        super().__init__()
        here: dict[str, Any] = {"device": beside.weight.device, "dtype": beside.weight.dtype}
        self.conv: nn.Conv2d = skip_init(nn.Conv2d, beside.in_channels, outputs, bias=False, **shape, **here)
        self.norm = nn.BatchNorm2d(outputs, **here)
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(self.norm.weight)
        nn.init.ones_(self.norm.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the map."""
        return F.relu(self.norm(self.conv(x)))


class Collaborative(nn.Conv2d):
    """A convolution with its batch norm, times the map of a collaborative layer: BN(W * x) · ReLU(BN'(W' * x)).

    Made from a convolution and a norm, whose tensors it takes over.

    Shapes: x [n, in_channels, h, w] → [n, out_channels, h', w']; ``map(x)`` [n, 1 or out_channels, h', w'].
    Paper: Dong, Huang, Yang, Yan, More is Less: A More Complicated Network with Less Inference Complexity, CVPR 2017.
    """

    def __init__(self, conv: nn.Conv2d, norm: nn.Module, partner: Partner) -> None:
        shape: dict[str, Any] = {"stride": conv.stride, "padding": conv.padding, "dilation": conv.dilation}
        super().__init__(
            conv.in_channels, conv.out_channels, conv.kernel_size,  # type: ignore[arg-type]
            bias=conv.bias is not None, device="meta", **shape,
        )  # fmt: skip
        self.weight, self.bias = conv.weight, conv.bias
        self.norm = norm
        shared = {"kernel_size": conv.kernel_size, **shape}
        self.map = (
            Map(conv, 1, **shared)
            if partner.kind == "shared"
            else Map(conv, conv.out_channels, kernel_size=1, stride=conv.stride)
        )
        self.partner = partner
        self.train(conv.training)

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised convolution times the map."""
        collaborative = self.map(x)
        product: Tensor = self.norm(super().forward(x)) * collaborative
        return product


def collaborators(model: nn.Module) -> dict[str, Collaborative]:
    """Return the convolutions of a model that have a collaborative layer, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Collaborative)}


def partners(model: nn.Module) -> dict[str, Partner]:
    """Return what ``attach`` was given to make this model, by the names of the convolutions."""
    return {name: module.partner for name, module in collaborators(model).items()}


def attach(model: nn.Module, wanted: Mapping[str, Partner]) -> None:
    """Give convolutions a collaborative layer, in place; those that have one already are passed over.

    Raises: PlanError for a name that is no convolution, or no batch norm, of the model.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    for name, partner in wanted.items():
        conv, norm = modules.get(name), modules.get(partner.norm)
        if isinstance(conv, Collaborative):
            continue
        if not isinstance(conv, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d):
            wrong = name if not isinstance(conv, nn.Conv2d) else partner.norm
            what = "convolution" if wrong == name else "batch norm"
            raise PlanError(
                f"The model has no {what} {wrong!r} for a collaborative layer.{did_you_mean(wrong, modules)}"
            )
        take_out(model, [partner.norm])
        exchange(model, conv, Collaborative(conv, norm, partner))


def exchange(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put one module, in place, wherever the model holds another."""
    for parent in list(model.modules()):
        for key, child in parent._modules.items():
            if child is old:
                parent._modules[key] = new


def places(model: nn.Module, graph: Graph, kind: Kind) -> tuple[dict[str, Partner], dict[str, str]]:
    """Return, by layer, the convolutions that may have a collaborative layer, and of the others why they may not."""
    modules, readers = dict(model.named_modules(remove_duplicate=False)), Readers(graph)
    found: dict[str, Partner] = {}
    refused: dict[str, str] = {}
    for i, layer in enumerate(graph.layers):
        norm, why = _norm_behind(graph, readers, i)
        why = _unfit(modules, layer) or why or _misshapen(layer, kind)
        if not why and type(modules.get(norm)) is not nn.BatchNorm2d:
            why = "no batch norm module reads it"
        if why:
            refused[layer.name] = why
        else:
            found[layer.name] = Partner(kind, norm)
    return {name: partner for name, partner in found.items() if name not in refused}, refused


def _unfit(modules: Mapping[str, nn.Module], layer: Layer) -> str:
    """Say why a module cannot have a collaborative layer; nothing where it can."""
    module = modules.get(layer.name)
    if isinstance(module, Collaborative):
        return "it has one already"
    if isinstance(modules.get(layer.name.rpartition(".")[0]), Map):
        return "it is one itself"
    if type(module) is not nn.Conv2d:
        return "it is no nn.Conv2d module"
    if layer.groups != 1:
        return "it is a grouped convolution, which is cheap already"
    if module.padding_mode != "zeros":
        return f"it pads by {module.padding_mode}, not with zeros"
    return ""


def _misshapen(layer: Layer, kind: Kind) -> str:
    """Say why a map of this kind does not suit a layer's kernel; nothing where it does."""
    if kind == "pointwise" and layer.kernel == (1, 1):
        return "a 1x1 map would cost as much as its own 1x1 kernel; take kind: shared"
    sides = zip(layer.padding, layer.dilation, layer.kernel, strict=True)
    if kind == "pointwise" and not all(2 * p == d * (k - 1) for p, d, k in sides):
        return "a 1x1 map has another size, since its padding is not half its kernel; take kind: shared"
    return ""


def _norm_behind(graph: Graph, readers: Readers, i: int) -> tuple[str, str]:
    """Return the batch norm behind a layer, between it and a ReLU, or else why there is none."""
    node, layer = readers.nodes[graph.nodes[i]], graph.layers[i]
    if not layer.weight or sum(one.weight == layer.weight for one in graph.layers) > 1:
        return "", "it runs more than once, or its weight is computed"
    if readers.tensors.get(node.args[0], "") is None:  # type: ignore[arg-type]
        return "", "it reads the picture, and everything hangs on it"
    norm = norm_behind(node)
    if norm is None:
        return "", "no batch norm is the only one that reads it"
    after = only_reader(norm)
    if after is None or after.target not in RELUS:
        return "", "no ReLU is the only one that reads its batch norm, so that a product would reach across a sum"
    name = readers.module(norm)
    return name, "" if name else "its batch norm is used elsewhere, or keeps no running statistics"
