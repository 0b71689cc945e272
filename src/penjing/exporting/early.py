"""Files that stop early: exits as conditions between the parts of a graph, of which a runtime runs those it needs.

Behind each exit the rest of the graph moves into one branch of an ``If``, the exit's answer into the other. A branch
reads what was computed before it, so that nothing is computed twice; its weights lie in it, since ONNX Runtime lays out
anew for its kernels only what a branch holds itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from penjing.core.files import write_whole
from penjing.data.splits import Split
from penjing.exporting import tidy
from penjing.exporting.modes import evaluating
from penjing.graph.exits import Exiting, confidence
from penjing.graph.quantized import quantized

EXIT, LAST = "exit_{}", "logits"
"""What the outputs of ``Every`` are called."""

OUTPUT = "output"
"""What the one output of the file is called."""

CLOSE = 3e-5
"""How near to its threshold, as a share of what is left to certainty, rounding may turn a decision over."""

TIPPING = 0.05
"""The same where layers round what they read, so that a last digit may tip a value over to the next level."""


def branched(proto: Any, thresholds: Sequence[float]) -> None:
    """Nest the graph of ``penjing.graph.exits.Every``, exported for one picture, behind its exits, in place."""
    graph = proto.graph
    answers = [EXIT.format(i) for i in range(len(thresholds))] + [LAST]
    nodes = list(graph.node)
    weights = {weight.name: weight for weight in graph.initializer}
    shape = next(value for value in graph.output if value.name == LAST)
    wanted = [_ancestors(nodes, answer) for answer in answers]
    taken: set[int] = set()
    placed: set[str] = set()
    levels = []
    for ids in wanted:
        own = [node for i, node in enumerate(nodes) if i in ids and i not in taken]
        taken |= ids
        read = [name for node in own for name in _read(node)]
        held = [weights[name] for name in dict.fromkeys(read) if name in weights and name not in placed]
        placed |= {weight.name for weight in held}
        levels.append((own, held))
    inner = None
    for i in reversed(range(len(levels))):
        inner = _level(i, levels[i], answers[i], thresholds[i] if i < len(thresholds) else None, inner, shape)
    made, output = inner  # type: ignore[misc]
    for field in ("node", "initializer", "output", "value_info"):
        graph.ClearField(field)
    graph.node.extend(made.node)
    graph.initializer.extend(made.initializer)
    graph.output.append(output)


def _level(
    i: int, level: tuple[list[Any], list[Any]], answer: str, threshold: float | None, inner: Any, shape: Any
) -> tuple[Any, Any]:
    """Return what runs from one exit to the next as a graph, all that follows being in it, and its output."""
    import onnx
    from onnx import helper

    nodes, weights = level
    output = onnx.ValueInfoProto()
    output.CopyFrom(shape)
    output.name = OUTPUT if i == 0 else f"{OUTPUT}_{i}"
    if threshold is None:
        closing = [helper.make_node("Identity", [answer], [output.name], name=f"answer_{i}")]
        return helper.make_graph([*nodes, *closing], f"part_{i}", [], [output], weights), output
    then = onnx.ValueInfoProto()
    then.CopyFrom(shape)
    then.name = f"{OUTPUT}_of_{answer}"
    leave = helper.make_graph(
        [helper.make_node("Identity", [answer], [then.name], name=f"leave_{i}")], f"leaving_{i}", [], [then]
    )
    limit = onnx.numpy_helper.from_array(np.array(threshold, dtype=np.float32), f"threshold_{i}")
    closing = [
        helper.make_node("Softmax", [answer], [f"probabilities_{i}"], name=f"probabilities_{i}", axis=1),
        helper.make_node("ReduceMax", [f"probabilities_{i}"], [f"confidence_{i}"], name=f"confidence_{i}", keepdims=0),
        helper.make_node("GreaterOrEqual", [f"confidence_{i}", limit.name], [f"sure_{i}"], name=f"sure_{i}"),
        helper.make_node(
            "If", [f"sure_{i}"], [output.name], name=f"exit_{i}_or_on", then_branch=leave, else_branch=inner[0]
        ),
    ]
    return helper.make_graph([*nodes, *closing], f"part_{i}", [], [output], [*weights, limit]), output


def with_thresholds(source: Path, target: Path, thresholds: Sequence[float]) -> Path:
    """Write a file that stops early with other thresholds, and return it."""
    import onnx

    proto = onnx.load(os.fspath(source))
    limits = {f"threshold_{i}": np.array(one, dtype=np.float32) for i, one in enumerate(thresholds)}
    for graph in tidy.graphs(proto.graph):
        for tensor in graph.initializer:
            if tensor.name in limits:
                tensor.CopyFrom(onnx.numpy_helper.from_array(limits[tensor.name], tensor.name))
    return write_whole(target, proto.SerializeToString())


def _ancestors(nodes: Sequence[Any], name: str) -> set[int]:
    """Return the positions of the nodes that a tensor hangs on."""
    maker = {output: i for i, node in enumerate(nodes) for output in node.output}
    found: set[int] = set()
    todo = [name]
    while todo:
        i = maker.get(todo.pop())
        if i is not None and i not in found:
            found.add(i)
            todo += _read(nodes[i])
    return found


def _read(node: Any) -> list[str]:
    """Return the tensors that a node reads, those that graphs inside it take from outside among them."""
    inner = [name for a in node.attribute if a.HasField("g") for one in a.g.node for name in _read(one)]
    return [*(name for name in node.input if name), *inner]


# ---------------------------------------------------------------------------------------------------- on pictures


def decided(model: Exiting, batches: Iterable[Any]) -> Iterator[Tensor]:
    """Yield the pictures of batches but for those where an exit that is asked hangs on the last digits of its sureness.

    Two forms of one network that are equal but for rounding may answer such a picture at different exits.
    """
    close = TIPPING if any(layer.reads is not None for layer in quantized(model).values()) else CLOSE
    for batch in batches:
        x = batch if isinstance(batch, Tensor) else next(value for value in batch if isinstance(value, Tensor))
        with evaluating(model):
            heard = model.every(x)[:-1]
        keep, asked = torch.ones(len(x), dtype=torch.bool), torch.ones(len(x), dtype=torch.bool)
        for logits, threshold in zip(heard, model.thresholds, strict=True):
            sure = confidence(logits)
            keep &= ~(asked & ((sure - threshold).abs() <= close * (1 - threshold) + 1e-7))
            asked &= sure < threshold
        if bool(keep.any()):
            yield x[keep]


def left_at(model: Exiting, split: Split, batch: int = 256) -> np.ndarray[Any, Any]:
    """Return the exit at which each picture of a split leaves, counted from 0, the end of the network last."""
    found = []
    with evaluating(model):
        for x, _ in split.batches(batch):
            at = torch.full((len(x),), len(model.exits))
            for i, logits in reversed(list(enumerate(model.every(x)[:-1]))):
                at[confidence(logits) >= model.thresholds[i]] = i
            found.append(at)
    return torch.cat(found).numpy()


def typical(model: Exiting, split: Split, count: int) -> list[Tensor]:
    """Return single pictures of a split, which leave at each exit about as often as all of them do."""
    order = np.argsort(left_at(model, split), kind="stable")
    wanted = order[np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)]
    return [x for x, _ in split.subset(np.sort(wanted)).batches(1)]
