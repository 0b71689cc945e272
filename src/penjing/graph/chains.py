"""Layers that a chain of smaller ones may replace, and chains that stand in a network."""

from __future__ import annotations

import copy
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from penjing.core.errors import PlanError, did_you_mean
from penjing.core.layers import Layer
from penjing.core.units import Ints
from penjing.factors.chain import empty, merge, shifted
from penjing.factors.gauge import boundaries, scores, settle
from penjing.factors.layer import Basis, LayerSpec, Pick, Shift, from_json, read, shape, sides
from penjing.graph.collaborative import Collaborative
from penjing.graph.graph import Graph
from penjing.graph.proof import Certificate, compare, eval_outputs
from penjing.graph.quantized import QuantConv2d, QuantLinear
from penjing.graph.surgery import places_of

BESIDE = "beside"
"""Under which name a bundle holds the shapes of filters that lie side by side."""

SHIFTED = "shifted"
"""Under which name a bundle holds how many channels of a shift take each tap."""


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
    chains = chains_of(model)
    strange = [path for path in chains if _is_strange(model.get_submodule(path))]
    unbroken = _unbroken(model, graph, chains, found)
    return replace(graph, modules=found, chains=unbroken, strange=_strange(model, strange))


def chains_in(model: nn.Module, graph: Graph) -> list[str]:
    """Return the chains of a model between whose stages its forward does nothing, as far as the program shows it.

    Of chains of another kind, with filters side by side or chains within, the program is not asked.
    """
    return [path for path in chains_of(model) if path in graph.chains or _is_strange(model.get_submodule(path))]


def why_whole(model: nn.Module, graph: Graph, layer: Layer) -> str:
    """Return why no chain may take a layer's place, as the end of a sentence; nothing where one may."""
    if layer.weight in graph.modules:
        return ""
    path, _, attribute = layer.weight.rpartition(".")
    if sum(one.weight == layer.weight for one in graph.layers) > 1:
        return "runs more than once, each time on what another layer wrote"
    module = dict(model.named_modules()).get(path)
    if not path or attribute != "weight" or module is None or len(places_of(model)[layer.weight]) > 1:
        return "has a weight that no module holds alone"
    if module._forward_hooks or module._forward_pre_hooks:
        return "has hooks, which a chain would not have"
    return f"is a {type(module).__name__}, and factorisations take torch's own Conv2d and Linear"


def chains_of(model: nn.Module, attached: bool = False) -> dict[str, tuple[LayerSpec, ...]]:
    """Return the sequences of linear layers, with nothing between them, by the name of the module that holds each.

    A stage may be a chain of its own; the shape of its first stage stands for it. For filters side by side stands the
    shape of the first, with the outputs of all. Layers in few bits, and those with a collaborative layer, are no linear
    ones; with ``attached`` they count as what they were made from.
    """
    found: dict[str, tuple[LayerSpec, ...]] = {}
    for path, module in reversed(list(model.named_modules())):  # what lies within comes first
        if path and type(module) is nn.Sequential and not module._forward_hooks and _is_long(module):
            specs = [_standing(stage, f"{path}.{name}", found, attached) for name, stage in module.named_children()]
            if all(spec is not None for spec in specs):
                found[path] = tuple(spec for spec in specs if spec is not None)
    return found


def written(model: nn.Module) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the shapes of the chains of a model, and of their stages by name, as plain JSON data."""
    chains = chains_of(model, attached=True)  # which they become again in what is made from these shapes
    return {
        path: {
            name: _facts(stage, f"{path}.{name}", chains) for name, stage in model.get_submodule(path).named_children()
        }
        for path in chains
    }


def _is_long(chain: nn.Sequential) -> bool:
    return len(chain) > 1 or any(isinstance(stage, Basis) for stage in chain)


def _standing(
    module: nn.Module, path: str, chains: Mapping[str, tuple[LayerSpec, ...]], attached: bool
) -> LayerSpec | None:
    """Return the shape that stands for a stage; None where it is no linear layer."""
    if path in chains:
        return chains[path][0]
    if attached and isinstance(module, QuantConv2d | QuantLinear | Collaborative):
        return shape(module)
    if not isinstance(module, Basis) or module._forward_hooks:
        return _spec(module)
    shapes = [_standing(conv, f"{path}.{name}", chains, attached) for name, conv in module.named_children()]
    known = [spec for spec in shapes if spec is not None]
    whole = len(known) == len(shapes) > 0
    return replace(known[0], out_channels=sum(spec.out_channels for spec in known)) if whole else None


def _facts(module: nn.Module, path: str, chains: Mapping[str, tuple[LayerSpec, ...]]) -> dict[str, Any]:
    """Return what a stage is made from again: its shape, or those of the filters side by side in it."""
    if isinstance(module, Basis):
        return {BESIDE: {name: _facts(conv, f"{path}.{name}", chains) for name, conv in module.named_children()}}
    spec = _standing(module, path, chains, attached=True)
    assert spec is not None
    return asdict(spec) | ({SHIFTED: list(module.counts)} if isinstance(module, Shift) else {})


def _made(facts: Mapping[str, Any], dtype: torch.dtype) -> nn.Module:
    """Return a stage of such a shape, without numbers."""
    if set(facts) == {BESIDE} and facts[BESIDE]:
        return Basis({name: empty(from_json(own), dtype) for name, own in facts[BESIDE].items()})
    if SHIFTED in facts:
        spec, counts = from_json({k: v for k, v in facts.items() if k != SHIFTED}), facts[SHIFTED]
        if spec.kind != "shift" or any(type(n) is not int for n in counts) or sum(counts) != spec.in_channels:
            raise ValueError("not the counts of a shift")
        return shifted(spec, counts)
    return empty(from_json(facts), dtype)


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
            stages = [(name, _made(facts, dtype)) for name, facts in chains[path].items()]
        except (TypeError, ValueError, AttributeError, KeyError):
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


def as_last_stages(graph: Graph, model: nn.Module) -> tuple[Graph, dict[int, Tensor]]:
    """Return the graph of an original with each layer that ``model`` has as a chain taken for the chain's last stage.

    That stage writes what the layer wrote, and reads ranks, which are no units of the graph. Beside it, by the layer's
    position, the index of the pick behind that stage, where the chain ends with one: which of the stage's channels each
    of the layer's is.
    """
    chains = chains_of(model)
    layers, orders = list(graph.layers), dict[int, Tensor]()
    for i, layer in enumerate(graph.layers):
        path = layer.weight.rpartition(".")[0]
        end = _end(model, path) if layer.weight in graph.modules and path in chains else None
        if end is not None:
            before, last, order = end
            size = size_read(layer, graph.modules[layer.weight])
            for stage in before:
                size = _through(stage, size)
            spec = read(model.get_submodule(last), last)
            ins = np.full(spec.in_channels, -1)
            layers[i] = as_layer(layer, last[len(path) + 1 :], spec, size, ins, layer.out_units)
            if order is not None:
                orders[i] = order
    return replace(graph, layers=tuple(layers)), orders


def _end(model: nn.Module, path: str) -> tuple[list[nn.Module], str, Tensor | None] | None:
    """Return the stages before the layer that writes what a chain does, its path, and the pick behind it, if any.

    None where several layers write it, or the pick does more than order channels.
    """
    module, before = model.get_submodule(path), list[nn.Module]()
    order: Tensor | None = None
    while type(module) is nn.Sequential:
        stages = list(module.named_children())
        pick = stages[-1][1]
        if isinstance(pick, Pick):
            if order is not None or len(stages) < 2:
                return None
            order = pick.index
            stages.pop()
        before += [stage for _, stage in stages[:-1]]
        name, module = stages[-1]
        path = f"{path}.{name}"
    if isinstance(module, Basis | Pick | Shift):
        return None
    ordered = order is None or order.sort().values.tolist() == list(range(read(module, path).out_channels))
    return (before, path, order) if ordered else None


def _through(stage: nn.Module, size: tuple[int, ...]) -> tuple[int, ...]:
    """Return the size of what a stage writes; filters side by side write one size."""
    if type(stage) is nn.Sequential:
        for inner in stage:
            size = _through(inner, size)
        return size
    return _through(next(stage.children()), size) if isinstance(stage, Basis) else tuple(read(stage).out_size(size))


def as_layer(layer: Layer, name: str, spec: LayerSpec, size: Sequence[int], ins: Ints, outs: Ints) -> Layer:
    """Return one stage of the chain that takes a layer's place, on an input of this size, as a layer of the graph."""
    path = layer.weight.rpartition(".")[0]
    zeros = spec.padding_mode == "zeros"
    padded = tuple(map(sum, sides(spec))) if layer.kernel else ()
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
    return tuple(n - before - after for n, (before, after) in zip(layer.in_size, sides(spec), strict=True))


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
        if isinstance(stage, Pick | Shift):
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
        certificate = compare(name, graph, merged(model, like), model, eval_outputs)
        if certificate.ok or certificate.trouble:
            return certificate
        exact = merged(copy.deepcopy(model).double(), like)  # whose products are not rounded to half precision
    except PlanError as error:
        return Certificate(name, float("inf"), 0.0, str(error))
    return compare(name, graph, exact, model, eval_outputs)


def _unbroken(
    model: nn.Module, graph: Graph, chains: Collection[str], alone: Collection[str]
) -> dict[str, tuple[int, ...]]:
    """Return the chains whose stages, each a module ``alone``, read what the one before wrote, as positions of layers.

    What a user's code does between two layers that one ``Sequential`` holds is in the program alone.
    """
    at, found = {layer.weight: i for i, layer in enumerate(graph.layers)}, {}
    nodes = {node.name: node for node in graph.program.nodes}
    for path in chains:
        stages = [
            f"{path}.{n}.weight"
            for n, one in model.get_submodule(path).named_children()
            if not isinstance(one, Pick | Shift)
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


def _is_strange(chain: nn.Module) -> bool:
    return any(isinstance(stage, Basis | nn.Sequential) for stage in chain.children())


def _strange(model: nn.Module, paths: Collection[str]) -> frozenset[str]:
    """Return the weights of the layers that write ranks in chains that hold filters side by side, or chains."""
    found: set[str] = set()
    for path in paths:
        for name, stage in _weighty(model.get_submodule(path))[:-1]:
            found.update(_writing(stage, f"{path}.{name}"))
    return frozenset(found)


def _weighty(chain: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, stage) for name, stage in chain.named_children() if not isinstance(stage, Pick | Shift)]


def _writing(module: nn.Module, path: str) -> Iterator[str]:
    """Yield the weights of the layers that write what a stage hands on."""
    if isinstance(module, Basis):
        for name, conv in module.named_children():
            yield from _writing(conv, f"{path}.{name}")
    elif type(module) is nn.Sequential:
        name, stage = _weighty(module)[-1]
        yield from _writing(stage, f"{path}.{name}")
    else:
        yield f"{path}.weight"


def _spec(module: nn.Module) -> LayerSpec | None:
    """Return the shape of a layer of torch's own; None of anything else."""
    if (
        not isinstance(module, nn.Conv2d | nn.Linear | Pick | Shift | Basis)
        or module._forward_hooks
        or module._forward_pre_hooks
    ):
        return None
    try:
        return read(module)
    except PlanError:
        return None
