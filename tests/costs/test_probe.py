from typing import Any

import onnx
import pytest
import torch
from torch import nn

from penjing.core.errors import PlanError
from penjing.core.layers import Layer
from penjing.costs.probe import PICKS, Shape, build, picks, time_shape
from penjing.exporting.session import fixed_batch, random_feeds, run, session

from .drafts import conv, layer, linear


def of_module(module: Any, *size: int) -> Shape:
    """Return the shape of a torch layer that reads pictures of this size, as the graph would record it."""
    with torch.no_grad():
        out = module(torch.zeros(1, module.in_channels, *size)).shape[2:]
    return Shape(
        module.in_channels, module.out_channels, module.groups, module.kernel_size, module.stride, module.dilation,
        isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d), size, tuple(out),
    )  # fmt: skip


SHAPES = {
    "first": of_module(nn.Conv2d(3, 8, 3, padding=1), 9, 9),
    "strided": of_module(nn.Conv2d(8, 12, 3, stride=2, padding=1), 9, 8),
    "unpadded": of_module(nn.Conv2d(8, 12, 5), 9, 8),
    "pointwise": of_module(nn.Conv2d(8, 12, 1, stride=3), 10, 10),
    "dilated": of_module(nn.Conv2d(8, 12, (3, 1), dilation=2, padding=2), 9, 9),
    "depthwise": of_module(nn.Conv2d(8, 8, 3, padding=1, groups=8), 9, 9),
    "grouped": of_module(nn.Conv2d(8, 12, 3, groups=4), 9, 9),
    "transposed": of_module(nn.ConvTranspose2d(8, 4, 3, stride=2, padding=1), 5, 5),
    "transposed with output padding": of_module(nn.ConvTranspose2d(8, 4, 3, 2, 1, output_padding=1), 5, 6),
    "transposed and wider than its kernels": of_module(nn.ConvTranspose2d(8, 4, 1, 3, output_padding=1), 5, 5),
    "transposed in groups": of_module(nn.ConvTranspose2d(8, 4, 2, 2, groups=2), 5, 5),
    "along time": of_module(nn.Conv1d(8, 4, 3), 20),
    "in a volume": of_module(nn.Conv3d(8, 4, 3, padding=1), 4, 5, 6),
}


@pytest.mark.parametrize("name", SHAPES)
def test_the_probe_runs_the_layer_it_is_asked_for(name: str) -> None:
    shape = SHAPES[name]
    proto = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(build(shape, 2, 3)), strict_mode=True)
    sizes = {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in proto.graph.value_info}
    assert sizes["y0"] == sizes["y1"] == [3, shape.out_channels, *shape.out_size]
    weights = {w.name: onnx.numpy_helper.to_array(w) for w in proto.graph.initializer}
    assert weights["w0"].size == shape.weights
    assert (weights["w0"] != weights["w1"]).any()
    running = session(proto.SerializeToString())
    ends = run(running, random_feeds(running, fixed_batch(running) or 3))
    assert len(ends) == 2 and all(end.size <= 3 * shape.out_channels * max(shape.out_size) ** 2 for end in ends)


def test_a_linear_layer_runs_at_every_position() -> None:
    tokens = layer(16, 8, kind="linear", in_size=(5,), out_size=(5,))
    proto = onnx.load_model_from_string(build(Shape.of(tokens), 1, 2))
    assert [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim] == [10, 16]
    assert Shape.of(tokens).macs == tokens.macs == 5 * 16 * 8


@pytest.mark.parametrize("a_layer", [conv(3, 8), conv(8, 8, groups=4, stride=2), linear(10, 4)])
def test_macs_agree_with_the_layer(a_layer: Layer) -> None:
    assert Shape.of(a_layer).macs == a_layer.macs


@pytest.mark.parametrize("a_layer", [conv(3, 8), linear(64, 32)])
def test_a_layer_takes_some_time(a_layer: Layer) -> None:
    assert 0 <= time_shape(Shape.of(a_layer)) < 1000


def test_a_layer_is_timed_on_what_reads_onnx() -> None:
    with pytest.raises(PlanError, match="torch_compile reads no ONNX"):
        time_shape(Shape.of(conv(3, 8)), runtime="torch_compile")
    pytest.importorskip("openvino")
    assert 0 <= time_shape(Shape.of(conv(8, 8)), runtime="openvino") < 1000


def test_two_models_of_a_pick_differ_by_the_picks_alone() -> None:
    shape = Shape(8, 24, in_size=(5, 6), out_size=(5, 6), picks=True)
    found = [onnx.load_model_from_string(picks(shape, count, 3)) for count in (0, PICKS)]
    operators = [[node.op_type for node in proto.graph.node] for proto in found]
    assert operators == [["Conv", "Conv"] * PICKS, ["Conv", "Gather", "Conv"] * PICKS]
    for proto in found:
        ends = run(session(proto.SerializeToString()), {"input": torch.randn(3, 1, 5, 6).numpy()})
        assert len(ends) == PICKS and all(end.shape[2:] == (1, 1) for end in ends)
    assert 0 <= time_shape(shape) < 1000


def test_a_pick_of_features_runs() -> None:
    proto = build(Shape(8, 12, picks=True), 2, 3)
    ends = run(session(proto), {"input": torch.randn(3, 8).numpy()})
    assert [end.shape for end in ends] == [(1, 12)] * 2
