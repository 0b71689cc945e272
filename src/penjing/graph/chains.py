"""Layers that a chain of smaller ones may replace, and chains that stand in a network."""

from __future__ import annotations

import copy
from collections import Counter, OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from penjing.core.errors import PlanError, did_you_mean
from penjing.core.types import Ints, Layer
from penjing.factors.chain import empty, merge
from penjing.factors.gauge import boundaries, scores, settle
from penjing.factors.layer import LayerSpec, Pick, from_json, read
from penjing.graph.graph import Graph
from penjing.graph.proof import Certificate, compare, eval_outputs
from penjing.graph.surgery import places_of


def with_modules(model: nn.Module, graph: Graph) -> Graph:
    """Return the graph with the shapes of the layers that are modules of their own."""
    runs = Counter(layer.weight for layer in graph.layers)
    places, found = places_of(model), dict[str, LayerSpec]()
    for layer in graph.layers:
        path, _, attribute = layer.weight.rpartition(".")
        if not path or attribute != "weight" or runs[layer.weight] > 1 or len(places[layer.weight]) > 1:
            continue
        spec = _spec(model.get_submodule(path))
        if spec is not None:
            found[layer.weight] = spec
    return replace(graph, modules=found, chains=_unbroken(model, graph, found))


def chains_of(model: nn.Module) -> dict[str, tuple[LayerSpec, ...]]:
    """Return the sequences of linear layers, with nothing between them, by the name of the module that holds each.

    A stage may be a chain of its own; the shape of its first stage stands for it.
    """
    found: dict[str, tuple[LayerSpec, ...]] = {}
    for path, module in reversed(list(model.named_modules())):  # what lies within comes first
        if path and type(module) is nn.Sequential and len(module) > 1 and not module._forward_hooks:
            inner = [found.get(f"{path}.{name}") for name, _ in module.named_children()]
            specs = [_spec(stage) if own is None else own[0] for own, stage in zip(inner, module, strict=True)]
            if all(spec is not None for spec in specs):
                found[path] = tuple(spec for spec in specs if spec is not None)
    return found


def written(model: nn.Module) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the shapes of the chains of a model, and of their stages by name, as plain JSON data."""
    found = {}
    for path, specs in chains_of(model).items():
        names = (name for name, _ in model.get_submodule(path).named_children())
        found[path] = {name: asdict(spec) for name, spec in zip(names, specs, strict=True)}
    return found


def stand_in(model: nn.Module, chains: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    """Put chains of these shapes, without numbers yet, in place of the layers that they were made from.

    What is a chain already stays. Paths of chains within chains come after those that hold them.

    Raises: PlanError for a shape that no layer has, or a layer that the model has not.
    """
    for path in sorted(chains):
        if path in (modules := dict(model.named_modules())) and type(modules[path]) is nn.Sequential:
            continue
        dtype = next((p.dtype for p in modules[path].parameters()), torch.float32) if path in modules else torch.float32
        try:
            stages = [(name, empty(from_json(facts), dtype)) for name, facts in chains[path].items()]
        except (TypeError, ValueError, AttributeError):
            raise PlanError(f"The chain {path} has a stage that is no shape of a layer.") from None
        put_in(model, path, nn.Sequential(OrderedDict(stages)))


def put_in(model: nn.Module, path: str, new: nn.Module) -> None:
    """Put a module, in place, wherever the model holds the one of this name.

    Raises: PlanError for a name that the model has not.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    if not path or path not in modules:
        raise PlanError(f"The model has no module {path!r} to replace.{did_you_mean(path, modules)}")
    old = modules[path]
    for parent in list(model.modules()):
        for key, child in parent._modules.items():
            if child is old:
                parent._modules[key] = new


def as_last_stages(graph: Graph, model: nn.Module) -> Graph:
    """Return the graph of an original with each layer that ``model`` has as a chain taken for the chain's last stage.

    That stage writes what the layer wrote, and reads ranks, which are no units of the graph.
    """
    chains = chains_of(model)
    layers = []
    for layer in graph.layers:
        path = layer.weight.rpartition(".")[0]
        inner = layer.weight in graph.modules and path in chains
        layers.append(
            _last_stage(layer, graph.modules[layer.weight], path, model.get_submodule(path)) if inner else layer
        )
    return replace(graph, layers=tuple(layers))


def _last_stage(layer: Layer, whole: LayerSpec, path: str, chain: nn.Module) -> Layer:
    stages, size = list(chain.named_children()), size_read(layer, whole)
    for name, stage in stages[:-1]:
        size = tuple(read(stage, f"{path}.{name}").out_size(size))
    name, module = stages[-1]
    spec = read(module, f"{path}.{name}")
    return as_layer(layer, name, spec, size, np.full(spec.in_channels, -1), layer.out_units)


def as_layer(layer: Layer, name: str, spec: LayerSpec, size: Sequence[int], ins: Ints, outs: Ints) -> Layer:
    """Return one stage of the chain that takes a layer's place, on an input of this size, as a layer of the graph."""
    path = layer.weight.rpartition(".")[0]
    zeros = spec.padding_mode == "zeros"
    padded = _padded(spec) if layer.kernel else ()
    pairs = (spec.kernel, spec.stride, spec.dilation) if layer.kernel else ((), (), ())
    read = tuple(size) if zeros else tuple(n + more for n, more in zip(size, padded, strict=True))
    return replace(
        layer, name=f"{layer.name}.{name}", weight=f"{path}.{name}.weight",
        bias=f"{path}.{name}.bias" if spec.bias else None, in_units=ins, out_units=outs, in_channels=spec.in_channels,
        out_channels=spec.out_channels, groups=spec.groups, kernel=pairs[0], stride=pairs[1], dilation=pairs[2],
        padding=tuple(n // 2 if zeros else 0 for n in padded), in_size=read, out_size=tuple(spec.out_size(size)),
        density=1.0,
    )  # fmt: skip


def as_left(spec: LayerSpec, layer: Layer) -> LayerSpec:
    """Return the shape of what a plan leaves of a layer of this shape."""
    left = replace(spec, in_channels=layer.in_channels, out_channels=layer.out_channels, groups=layer.groups)
    if len(layer.kernel) == 2 and layer.kernel != spec.kernel:  # cropped by the same plan
        (high, wide), (above, beside) = layer.kernel, layer.padding
        around = spec.padding if isinstance(spec.padding, str) else (above, beside)
        left = replace(left, kernel=(high, wide), padding=around)
    return left


def size_read(layer: Layer, spec: LayerSpec) -> tuple[int, ...]:
    """Return the size of what a layer reads, before it is padded by anything but zeros, which is a step of its own."""
    if spec.padding_mode == "zeros":
        return layer.in_size
    return tuple(n - total for n, total in zip(layer.in_size, _padded(spec), strict=True))


def _padded(spec: LayerSpec) -> tuple[int, ...]:
    """Return how much padding adds to each axis, as torch works out ``"same"``."""
    if isinstance(spec.padding, tuple):
        return tuple(2 * p for p in spec.padding)
    return tuple(d * (k - 1) for d, k in zip(spec.dilation, spec.kernel, strict=True))


def settled(model: nn.Module, graph: Graph) -> tuple[nn.Module, dict[str, Tensor]]:
    """Return the network with its ranks in one gauge, and what each holds, by the weight that writes it.

    However a scale is split between the stages of a chain, the copy is the same and computes what the model does. Ranks
    on whose way channels are picked stay as they are. A model without chains is returned itself.
    """
    parts = [part for path in graph.chains for part in _between_picks(path, model.get_submodule(path))]
    if not parts:
        return model, {}
    copied, held = copy.deepcopy(model), dict[str, Tensor]()
    for names in parts:
        stages = [copied.get_submodule(name) for name in names]
        settle(stages)
        writers = {id(stage): name for name, stage in zip(names, stages, strict=True)}
        held |= {f"{writers[id(one.writer)]}.weight": scores(one) for one in boundaries(stages)}
    return copied, held


def _between_picks(path: str, chain: nn.Module) -> list[list[str]]:
    """Return the runs of two or more stages of a chain that pick nothing, by their full names."""
    runs: list[list[str]] = [[]]
    for name, stage in chain.named_children():
        if isinstance(stage, Pick):
            runs.append([])
        else:
            runs[-1].append(f"{path}.{name}")
    return [run for run in runs if len(run) > 1]


def merged(model: nn.Module, like: nn.Module) -> nn.Module:
    """Return a copy with each chain that stands for one layer of ``like`` contracted into the layer it computes.

    Raises: PlanError naming the chain that no single layer computes.
    """
    smaller, modules = copy.deepcopy(model), dict(like.named_modules())
    for path in chains_of(model):
        if type(modules.get(path)) is not nn.Sequential:
            put_in(smaller, path, merge(smaller.get_submodule(path), path))  # type: ignore[arg-type]
    return smaller


def prove_chains(graph: Graph, model: nn.Module, like: nn.Module) -> Certificate:
    """Compare the model with the one whose chains are contracted into the layers of ``like`` that they stand for."""
    name = "chains equal their products"
    try:
        whole = merged(model, like)
    except PlanError as error:
        return Certificate(name, float("inf"), 0.0, str(error))
    return compare(name, graph, whole, model, eval_outputs)


def _unbroken(model: nn.Module, graph: Graph, alone: Collection[str]) -> dict[str, tuple[int, ...]]:
    """Return the chains whose stages, each a module ``alone``, read what the one before wrote, as positions of layers.

    What a user's code does between two layers that one ``Sequential`` holds is in the program alone.
    """
    at, found = {layer.weight: i for i, layer in enumerate(graph.layers)}, {}
    nodes = {node.name: node for node in graph.program.nodes}
    for path in chains_of(model):
        stages = [
            f"{path}.{n}.weight" for n, one in model.get_submodule(path).named_children() if type(one) is not Pick
        ]
        if len(stages) > 1 and all(stage in alone and stage in at for stage in stages):
            places = tuple(at[stage] for stage in stages)
            both = ((nodes.get(graph.nodes[i]), nodes.get(graph.nodes[j])) for i, j in pairwise(places))
            if all(a is not None and b is not None and _hands_on(a, b) for a, b in both):
                found[path] = places
    return found


def _hands_on(writer: torch.fx.Node, reader: torch.fx.Node) -> bool:
    """Tell whether a layer reads what another wrote, at most padded or picked, and nothing else reads it."""
    node: Any = reader.args[0]
    while isinstance(node, torch.fx.Node) and len(node.users) == 1:
        if node is writer:
            return True
        name = getattr(node.target, "overloadpacket", node.target)
        if name not in (torch.ops.aten.pad, torch.ops.aten.index_select):
            return False
        node = node.args[0]
    return False


def _spec(module: nn.Module) -> LayerSpec | None:
    """Return the shape of a layer of torch's own; None of anything else."""
    if not isinstance(module, nn.Conv2d | nn.Linear | Pick) or module._forward_hooks or module._forward_pre_hooks:
        return None
    try:
        return read(module)
    except PlanError:
        return None
