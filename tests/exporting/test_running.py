"""Finished networks whose layers of signs run from their packed weights."""

import copy

import pytest
import torch
from torch import nn

import penjing
from penjing.core.errors import PlanError
from penjing.exporting import bundle
from penjing.exporting.onnx import export_onnx
from penjing.graph.trace import trace
from penjing.kernels.xnor import XnorConv2d
from penjing.steps.quantize import quantize
from penjing.steps.state import Run, State
from tiny import tiny

X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


class Strided(nn.Module):
    """A network whose middle layers have strides, groups, dilation, padding of torch's words, and biases."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3)
        self.strided = nn.Conv2d(12, 18, 3, stride=2, padding=1, groups=3)
        self.dilated = nn.Conv2d(18, 20, 3, padding="same", dilation=2, bias=False)
        self.middle, self.head = nn.Linear(20, 30), nn.Linear(30, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.dilated(self.strided(self.stem(x).relu()).relu()).relu().mean((2, 3))
        return self.head(self.middle(x).relu())


@pytest.mark.parametrize("make", [tiny, Strided])
@pytest.mark.parametrize("method", ["xnor", {"xnor": {"gain": True}}, "irnet", "bireal"], ids=str)
def test_it_computes_what_the_quantized_network_computes(method, make, tmp_path):
    torch.manual_seed(0)
    model = make().eval()
    graph = trace(model, (X,), proof=False)
    step = quantize(method)
    plan = step._plan(graph, Run(tmp_path))
    small = copy.deepcopy(model)
    step.change.on((X,)).apply(small, graph, plan.of_rewrite(step.name))
    bundle.write(tmp_path / "b", small.eval(), finished=True)
    packed = bundle.load(tmp_path / "b", make)
    assert sum(isinstance(module, XnorConv2d) for module in packed.modules()) == len(plan)
    whole = bundle.load(tmp_path / "b", make, packed=False)
    with torch.no_grad():
        assert torch.equal(whole(X), small(X))
        torch.testing.assert_close(packed(X), small(X), rtol=1e-4, atol=1e-5)
    names = packed.state_dict()
    assert not any(name.removesuffix(".weight") in {e.site.rpartition("/")[0] for e in plan} for name in names)


def test_weights_alone_in_few_bits_are_the_numbers_that_they_stand_for(tmp_path):
    model = tiny().eval()
    made = quantize("twn")(State(model, model, None, ((X,), {})), Run(tmp_path)).model
    bundle.write(tmp_path / "b", made, finished=True)
    again = bundle.load(tmp_path / "b", tiny)
    with torch.no_grad():
        assert torch.equal(again(X), made.eval()(X))


@pytest.mark.parametrize(
    "use",
    [
        lambda net, folder: penjing.run(net, None, ["export"], example=X, folder=folder / "run"),
        lambda net, folder: penjing.inspect(net, X),
        lambda net, folder: export_onnx(net, (X,), None, folder / "x.onnx"),
    ],
    ids=["run", "inspect", "export"],
)
def test_a_network_that_runs_packed_is_for_running_alone(use, tmp_path):
    model = tiny().eval()
    change = quantize("xnor").change.on((X,))
    graph = trace(model, (X,), proof=False)
    change.apply(model, graph, quantize("xnor")._plan(graph, Run(tmp_path)).of_rewrite("xnor"))
    bundle.write(tmp_path / "b", model, finished=True)
    packed = bundle.load(tmp_path / "b", tiny)
    with pytest.raises(PlanError, match=r"^conv1 runs from its packed weights, .* load it with packed=False"):
        use(packed, tmp_path)
    assert not packed(X).requires_grad  # or what lies before would seem to train
    assert bundle.load(tmp_path / "b", tiny, packed=False)(X).requires_grad
