"""Shifts in an ONNX file: depthwise convolutions of a one and zeros, stored as one number a channel.

As a pad, a split, slices and a concatenation, a runtime executes a shift one by one, and changes layout before and
after; a depthwise convolution it computes in the layout of its neighbours.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from penjing.factors.layer import Shift, sides


def as_convolutions(model: nn.Module) -> nn.Module:
    """Return a copy whose shifts are depthwise convolutions; a model without shifts is returned itself."""
    names = [name for name, one in model.named_modules(remove_duplicate=False) if type(one) is Shift]
    plain = [name for name in names if not _hooked(model.get_submodule(name))]
    if not plain:
        return model
    copied = copy.deepcopy(model)
    floating = next((p for p in copied.parameters() if p.is_floating_point()), None)
    for name in plain:
        conv = _convolution(copied.get_submodule(name))
        conv = conv if floating is None else conv.to(floating.device, floating.dtype)
        if not name:
            return conv
        copied.set_submodule(name, conv)
    return copied


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _convolution(shift: Any) -> nn.Module:
    spec, (high, wide) = shift.spec, sides(shift.spec)
    uneven = spec.padding_mode == "zeros" and (high[0] != high[1] or wide[0] != wide[1])
    padding = 0 if uneven else spec.padding
    conv = nn.Conv2d(
        spec.in_channels, spec.in_channels, spec.kernel, spec.stride, padding, spec.dilation, spec.in_channels,
        bias=False, padding_mode=spec.padding_mode,
    )  # fmt: skip
    conv.weight = nn.Parameter(shift.kernels().float(), requires_grad=False)
    return nn.Sequential(nn.ZeroPad2d((*wide, *high)), conv) if uneven else conv


def gather(proto: Any) -> None:
    """Store kernels of a one and zeros, in place, as the place of the one, and have the file look the kernels up.

    A runtime does so once, when it opens the file. A kernel of 3 x 3 then takes 4 bytes in place of 36.
    """
    from onnx import helper, numpy_helper

    graph, nodes, tables = proto.graph, list[Any](), dict[str, Any]()
    depthwise = {node.input[1] for node in graph.node if node.op_type == "Conv"}
    for tensor in [one for one in graph.initializer if one.name in depthwise]:
        places = _places(tensor)
        if places is None:
            continue
        taps, dtype = math.prod(tensor.dims[1:]), helper.tensor_dtype_to_np_dtype(tensor.data_type)
        table = f"shift/{'x'.join(map(str, tensor.dims[2:]))}/{dtype}"
        tables[table] = np.eye(taps, dtype=dtype).reshape(taps, *tensor.dims[1:])
        index = numpy_helper.from_array(places.astype(np.int32), f"{tensor.name}/taps")
        nodes.append(helper.make_node("Gather", [table, index.name], [tensor.name], axis=0))
        graph.initializer.remove(tensor)
        graph.initializer.append(index)
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in tables.items())
    before = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *before])


def _places(tensor: Any) -> NDArray[np.intp] | None:
    """Return where each kernel has its one; None for other kernels, and where the places would take no less."""
    from onnx import numpy_helper

    if len(tensor.dims) != 4 or tensor.dims[1] != 1:
        return None
    count, taps = tensor.dims[0], math.prod(tensor.dims[2:])
    if count * taps <= count + taps**2:
        return None
    rows = numpy_helper.to_array(tensor).reshape(count, taps)
    one = rows == 1
    return one.argmax(1) if np.all(one.sum(1) == 1) and np.all(one | (rows == 0)) else None


def spread(proto: Any) -> None:
    """Undo ``gather``, in place: for tools that want the weights of convolutions to be stored tensors."""
    from onnx import numpy_helper

    graph = proto.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    ours = [n for n in graph.node if n.op_type == "Gather" and n.input[1] == f"{n.output[0]}/taps"]
    for node in ours:
        table, index = (numpy_helper.to_array(stored[name]) for name in node.input)
        graph.initializer.append(numpy_helper.from_array(table[index], node.output[0]))
        graph.node.remove(node)
    for name in {name for node in ours for name in node.input}:
        graph.initializer.remove(stored[name])
