"""What ``inspect`` tells of a network: its layers, what may be cut and factorised, and what stays and why."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from penjing.core import console
from penjing.core.layers import Layer
from penjing.core.registry import build
from penjing.costs.units import show
from penjing.criteria.zeros import Zeros, average, validation_pictures, zeros_after_relu
from penjing.data.load import as_data
from penjing.graph.blocks import lost
from penjing.graph.graph import Graph
from penjing.graph.program import plain
from penjing.graph.quantized import FLOAT, precisions


def methods(model: nn.Module) -> dict[str, str]:
    """Return how the layers of a network that are in few bits were quantized, by the names of their weights."""
    return {f"{path}.weight": one.quantizer.name for path, one in precisions(model).items()}


def _bits(layer: Layer, methods: Mapping[str, str]) -> str:
    """Say in how many bits the weights of a layer are, and what it reads."""
    if layer.weight not in methods:
        return ""
    reads = f", reads {layer.input_bits}" if layer.input_bits < FLOAT else ""
    return f"{FLOAT} -> {layer.bits} bits{reads} ({methods[layer.weight]})"


def facts(graph: Graph, zeros: Sequence[Zeros] = (), methods: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return what a graph tells as plain data, with the zeros after each ReLU where they were counted.

    ``methods`` are those by which layers are in few bits, by weight.
    """
    counted = {"zeros": [{"ReLU after": z.layer, "values": z.values, "zero": z.share} for z in zeros]}
    if zeros:
        counted["zeros"].append({"ReLU after": "all", "values": sum(z.values for z in zeros), "zero": average(zeros)})
    ranks = {
        site.name.rpartition("/")[0]: f"{site.size}, pays to {site.most}"
        for site in build("rewrite", "svd").find(graph)
    }
    return {
        "macs": sum(layer.macs for layer in graph.layers),
        "params": sum(math.prod(shape) for shape in graph.shapes.values()),
        "share_free": graph.share_free,
        "layers": [
            {
                "name": layer.name,
                "kind": layer.kind,
                "channels": f"{layer.in_channels}->{layer.out_channels}",
                "kernel": "x".join(map(str, layer.kernel)),
                "groups": layer.groups,
                "output": "x".join(map(str, layer.out_size)),
                "ranks": ranks.get(layer.name, ""),
                **({"bits": _bits(layer, methods)} if methods else {}),
                "macs": layer.macs,
            }
            for layer in graph.layers
        ],
        "sites": [
            {"site": s.name, "units": s.size, "tensors": len(s.slots), "read by": len(graph.layers_reading(s))}
            for s in graph.sites
        ],
        "blocks": [
            {"block": name, "layers": len(block.layers), "parameters": _parameters_of(graph, name)}
            for name, block in graph.blocks.items()
        ],
        "pinned": [{"where": n.where, "channels": n.units, "why": n.why, "line": n.line} for n in graph.notes],
        "pinned blocks": [{"where": n.where, "why": n.why, "line": n.line} for n in graph.block_notes],
        **counted,
    }


def _parameters_of(graph: Graph, block: str) -> int:
    return sum(math.prod(graph.shapes[name]) for name in lost(graph, {block}) if name in graph.shapes)


def count_zeros(model: nn.Module, graph: Graph, data: Any, images: int = 256, seed: int = 0) -> list[Zeros]:
    """Return the share of zeros after each ReLU of a model that ``inspect`` traced, on so many validation pictures.

    Raises: PlanError for a model without a ReLU; DataError for data that cannot be read.
    """
    return zeros_after_relu(plain(model).cpu(), graph, validation_pictures(as_data(data, seed=seed), images, seed))


def told(found: Mapping[str, Any]) -> str:
    """Return what ``facts`` says as text."""
    parts = [
        f"{show(found['params'], 'parameters')} parameters, {show(found['macs'], 'MACs')} MACs, "
        f"{found['share_free']:.0%} of the inner channels may be cut"
    ]
    for title, key in (
        ("Layers", "layers"),
        ("Sites: what may be cut", "sites"),
        ("Blocks: what may be left out whole", "blocks"),
        ("Pinned: what stays, and why", "pinned"),
        ("Blocks that stay, and why", "pinned blocks"),
        ("Zeros after each ReLU, on validation pictures", "zeros"),
    ):
        rows = found[key]
        if rows:
            cells = [[_shown(key, value) for key, value in row.items()] for row in rows]
            parts.append(console.table(title, list(rows[0]), cells))
    return "\n\n".join(parts)


def _shown(key: str, value: Any) -> str:
    return show(value, "MACs") if key == "macs" else f"{value:.1%}" if key == "zero" else str(value)
