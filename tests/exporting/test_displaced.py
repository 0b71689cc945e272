"""Shifts as depthwise convolutions in the file: the same answers, nothing moved, hardly a byte, also in int8."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from penjing.exporting.displaced import as_convolutions, gather, spread
from penjing.exporting.int8 import Int8, quantize
from penjing.exporting.onnx import export_onnx
from penjing.exporting.session import operators
from penjing.exporting.verify import parity
from penjing.factors.layer import Shift

COUNTS = [3, 2, 2, 3, 0, 2, 3, 2, 3]
MOVES = {"Pad", "Split", "Slice", "Concat"}


def net(shift: Shift) -> nn.Sequential:
    torch.manual_seed(0)
    wide = sum(shift.counts)
    return nn.Sequential(nn.Conv2d(3, wide, 1), shift, nn.Conv2d(wide, 8, 1), nn.ReLU()).eval()


SHIFTS = {
    "plain": Shift(COUNTS),
    "strided": Shift(COUNTS, stride=(2, 1)),
    "dilated": Shift(COUNTS, dilation=(2, 2), padding=(2, 2)),
    "same": Shift([5] * 6, kernel=(2, 3), padding="same"),
    "reflected": Shift(COUNTS, padding_mode="reflect"),
}


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("name", SHIFTS)
def test_a_shift_is_one_convolution_in_the_file_and_a_number_a_channel(name: str, quick: bool, tmp_path: Path) -> None:
    model, x = net(SHIFTS[name]), torch.randn(3, 3, 9, 8)
    file = export_onnx(model, (x[:1],), None, tmp_path / "x.onnx", quick=quick)
    found = operators(file)
    assert found["Conv"] == 3 and found["Gather"] == 1
    if name not in ("reflected", "same"):  # which are padded beforehand
        assert not set(found) & MOVES
    assert parity(model, file, [x]).relative < 1e-5
    stored = {tensor.name: tuple(tensor.dims) for tensor in onnx.load(file).graph.initializer}
    assert (sum(SHIFTS[name].counts),) in stored.values()
    assert type(model[1]) is Shift


def test_looking_kernels_up_is_undone(tmp_path: Path) -> None:
    file = export_onnx(net(SHIFTS["plain"]), (torch.randn(1, 3, 8, 8),), None, tmp_path / "x.onnx")
    proto = onnx.load(file)
    packed = proto.ByteSize()
    spread(proto)
    onnx.checker.check_model(proto, full_check=True)
    kernels = [onnx.numpy_helper.to_array(t) for t in proto.graph.initializer if tuple(t.dims[1:]) == (1, 3, 3)]
    assert len(kernels) == 1 and np.array_equal(kernels[0], SHIFTS["plain"].kernels().numpy())
    assert not [node for node in proto.graph.node if node.op_type == "Gather"] and proto.ByteSize() > packed
    gather(proto)
    assert proto.ByteSize() == packed


def test_other_depthwise_kernels_stay_as_they_are() -> None:
    """A kernel with two ones, none, or another number is no shift."""
    for place, value in ((0, 1.0), (None, 0.0), (4, 0.5)):
        weight = np.tile(np.eye(9, dtype=np.float32)[4], (32, 1))
        weight[5] = 0.0 if place is None else weight[5]
        if place is not None:
            weight[5, place] = value
        tensor = onnx.numpy_helper.from_array(weight.reshape(32, 1, 3, 3), "w")
        conv = onnx.helper.make_node("Conv", ["x", "w"], ["y"], group=32)
        graph = onnx.helper.make_graph([conv], "g", [], [], [tensor])
        proto = onnx.helper.make_model(graph)
        gather(proto)
        assert [node.op_type for node in proto.graph.node] == ["Conv"]


def test_in_int8_a_shift_computes_in_whole_numbers_as_well(tmp_path: Path) -> None:
    model, x = net(SHIFTS["plain"]), torch.randn(64, 3, 8, 8)
    file = export_onnx(model, (x[:1],), None, tmp_path / "x.onnx")
    told = quantize(file, tmp_path / "q.onnx", [x], Int8("minmax"))
    assert not told.kept and len(told.layers) == 3
    assert parity(model, tmp_path / "q.onnx", [x]).relative < 0.1


def test_a_shift_that_somebody_listens_to_stays(tmp_path: Path) -> None:
    model = net(Shift(COUNTS))
    model[1].register_forward_hook(lambda *_: None)
    assert as_convolutions(model) is model
