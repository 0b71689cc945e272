"""What trains for int8 rounds as the file will, and its ranges follow what it reads until they settle."""

import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from penjing.core.errors import PlanError
from penjing.exporting.bias import _dequantized
from penjing.exporting.int8 import Int8, quantize
from penjing.exporting.onnx import export_onnx
from penjing.quantizers.fake_int8 import FilterWeights, RangeReads, fake_int8


@pytest.mark.parametrize("shape", [(6, 3, 3, 3), (4, 7), (3, 1, 1, 1)])
def test_what_is_computed_is_what_is_stored(shape):
    torch.manual_seed(0)
    weight = torch.randn(shape)
    weight[1] = 0
    weights = fake_int8().weights(shape, 8).eval()
    assert torch.equal(weights(weight), weights.levels(weight).values())
    assert (weights(weight) - weight).abs().max() <= weight.flatten(1).abs().amax() / 254 * 1.001


@pytest.mark.parametrize("narrow", [False, True])
def test_rounding_before_the_norm_is_folded_is_rounding_after(narrow, tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1))
    with torch.no_grad():
        model[1].running_var.uniform_(0.1, 9)
        model[1].weight.normal_()
    x = torch.randn(32, 3, 8, 8)
    path = export_onnx(model.eval(), (x[:2],), None, tmp_path / "float.onnx", quick=True)
    quantize(path, tmp_path / "q.onnx", [x], Int8(reduce_range=narrow))
    proto = onnx.load(tmp_path / "q.onnx")
    node = next(node for node in proto.graph.node if node.op_type == "Conv")
    file = torch.from_numpy(_dequantized(proto, node.input[1]))
    fold = (model[1].weight / (model[1].running_var + model[1].eps).sqrt()).view(-1, 1, 1, 1)
    ours = FilterWeights(8, 64 if narrow else 127)(model[0].weight) * fold
    assert torch.allclose(ours, file, atol=1e-6)
    assert numpy_helper.to_array(proto.graph.initializer[0]) is not None


def test_gradients_pass_within_the_range_alone():
    reads = RangeReads(8).eval()
    reads.start(torch.tensor([-0.5, 2.05]))
    x = torch.tensor([-0.6, 0.0, 1.0, 2.5], requires_grad=True)
    y = reads(x)
    assert y.tolist() == pytest.approx([-0.5, 0, 1, 2.05], abs=1e-6)
    y.sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 0]


def test_ranges_follow_until_they_settle():
    reads = RangeReads(8)
    reads.start(torch.tensor([0.0, 1.0]))
    for _ in range(200):
        reads(torch.tensor([-1.0, 3.0]))
    assert reads.high.item() == pytest.approx(3, rel=1e-3) and reads.low.item() == pytest.approx(-1, rel=1e-3)
    reads.after_step(0.9)
    reads(torch.tensor([-9.0, 9.0]))
    assert reads.high.item() < 3.01
    reads.after_step(0.1)
    reads.eval()(torch.tensor([9.0]))
    assert reads.high.item() < 3.01
    with pytest.raises(PlanError, match="finite"):
        reads.start(torch.tensor([float("nan")]))


def test_ranges_that_have_settled_stay_where_a_training_goes_on():
    reads, again = RangeReads(8), RangeReads(8)
    reads.start(torch.tensor([0.0, 1.0]))
    reads.after_step(0.9)
    again.load_state_dict(reads.state_dict())
    again.train()(torch.tensor([-9.0, 9.0]))
    assert (again.low.item(), again.high.item()) == (0, 1)
