"""What is done to an ONNX graph between the exporter and the file."""

from __future__ import annotations

from typing import Any

FOLDABLE = ("Conv", "ConvTranspose", "Gemm")


def strip(model: Any) -> None:
    """Drop the exporter's debugging notes in place: they take kilobytes and quote paths of the user's machine."""
    model.ClearField("metadata_props")
    for graph in graphs(model.graph):
        for item in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
            item.ClearField("doc_string")
            item.ClearField("metadata_props")


def name_batch(model: Any, name: str = "batch") -> None:
    """Rename the open dimension 0 of the inputs, whatever the exporter called it, everywhere in the graph."""
    graph = model.graph
    firsts = [value.type.tensor_type.shape.dim[:1] for value in graph.input]
    symbols = {first.dim_param for dims in firsts for first in dims if first.dim_param}
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param in symbols:
                dimension.dim_param = name


def open_inputs(model: Any) -> bool:
    """Tell whether some input has an open dimension 0."""
    return any(first.dim_param for value in model.graph.input for first in value.type.tensor_type.shape.dim[:1])


def unfolded(model: Any) -> list[str]:
    """Name the batch norms that directly follow a convolution or linear layer and were not folded into it.

    Where something else reads the layer too, there is nothing to fold.
    """
    graph = model.graph
    maker = {output: node for node in graph.node for output in node.output}
    readers = [name for node in graph.node for name in node.input] + [value.name for value in graph.output]
    return [
        node.name or node.output[0]
        for node in graph.node
        if node.op_type == "BatchNormalization"
        and (before := maker.get(node.input[0])) is not None
        and before.op_type in FOLDABLE
        and readers.count(node.input[0]) == 1
    ]


def operators(model: Any) -> dict[str, int]:
    """Count the operators of a graph and of the graphs inside it, by name, sorted."""
    names = [node.op_type for graph in graphs(model.graph) for node in graph.node]
    return {name: names.count(name) for name in sorted(set(names))}


def graphs(graph: Any) -> list[Any]:
    """Return a graph and those inside it."""
    inner = [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
    return [graph, *(found for g in inner for found in graphs(g))]
