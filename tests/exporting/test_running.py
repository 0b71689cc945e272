"""Finished networks whose layers of signs run from their packed weights."""

import copy

import pytest
import torch
from torch import nn

from penjing.exporting import bundle
from penjing.graph.trace import trace
from penjing.kernels.sparse import SparseConv2d
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
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            nn.init.uniform_(tensor, 0.5, 1.5)
    graph = trace(model, (X,), proof=False)
    step = quantize(method)
    plan = step._plan(graph, Run(tmp_path))
    small = copy.deepcopy(model)
    step.change.on((X,)).apply(small, graph, plan.of_rewrite(step.name))
    bundle.write(tmp_path / "b", small.eval(), finished=True, inputs=[[3, 8, 8]] if make is tiny else ())
    packed = bundle.load(tmp_path / "b", make)
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in packed.modules())
    assert norms == (3 if method == {"xnor": {"gain": True}} else 1) * (make is tiny)  # the others are taken in
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


def test_sparse_convolutions_run_by_what_is_not_zero(tmp_path):
    torch.manual_seed(0)
    model = Strided().eval()
    with torch.no_grad():
        for layer in (model.strided, model.dilated):
            layer.weight.mul_(torch.rand_like(layer.weight) < 0.1)
    bundle.write(tmp_path / "b", model, finished=True)
    again = bundle.load(tmp_path / "b", Strided)
    kinds = {name: type(module) for name, module in again.named_modules()}
    assert kinds["dilated"] is SparseConv2d and kinds["strided"] is nn.Conv2d  # whose filters are of 36 weights
    with torch.no_grad():
        torch.testing.assert_close(again(X), model(X))
        assert torch.equal(bundle.load(tmp_path / "b", Strided, packed=False)(X), model(X))
