"""Finished networks whose layers of signs run from their packed weights."""

import copy

import pytest
import torch
from torch import nn

import penjing
from penjing.core.errors import PlanError
from penjing.exporting import bundle
from penjing.exporting.onnx import export_onnx
from penjing.exporting.running import _pays
from penjing.graph.trace import trace
from penjing.kernels import build, codebook
from penjing.kernels.codebook import CodebookConv2d
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


class Wide(nn.Module):
    """A network whose middle convolution is large enough to run by look-up, and whose others are not."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.small = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 256, 1)
        self.large = nn.Conv2d(256, 128, 3, stride=2, padding=2, dilation=2)
        self.middle, self.head = nn.Linear(128, 30), nn.Linear(30, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.large(self.small(self.stem(x).relu()).relu()).relu().mean((2, 3))
        return self.head(self.middle(x).relu())


@pytest.mark.parametrize(
    ("method", "bits"), [("twn", 2), ("ttq", 2), ("binaryconnect", 1), ("codebook", 4), ("codebook", 5), ("hashed", 4)]
)
def test_weights_alone_in_few_bits(method, bits, tmp_path):
    """Linear layers of up to 16 numbers run by look-up, and convolutions where it pays; others are those numbers."""
    torch.manual_seed(0)
    model = Wide().eval()
    made = quantize(method, bits=bits)(State(model, model, None, ((X,), {})), Run(tmp_path)).model
    bundle.write(tmp_path / "b", made, finished=True)
    again, whole = bundle.load(tmp_path / "b", Wide), bundle.load(tmp_path / "b", Wide, packed=False)
    looked_up = {name: module for name, module in again.named_modules() if isinstance(module, CodebookConv2d)}
    few = bits <= 4 and method != "hashed" and build.load("codebook", codebook.DECLARATIONS) is not None
    wide = few and _pays((128, 256, 3, 3), 1)
    assert set(looked_up) == ({"middle"} if few else set()) | ({"large"} if wide else set())
    with torch.no_grad():
        assert torch.equal(whole(X), made.eval()(X))
        torch.testing.assert_close(again(X), whole(X), rtol=1e-4, atol=1e-5)
    for name, module in looked_up.items():
        assert torch.equal(module.values(), whole.get_submodule(name).weight)
        assert module.nbytes < module.values().nbytes / 4


@pytest.mark.parametrize(
    ("shape", "groups", "pays"),
    [
        ((128, 256, 3, 3), 1, True),
        ((256, 256, 3, 3), 2, False),
        ((300, 250, 3, 3), 1, False),
        ((128, 128, 3, 3), 1, False),
        ((1024, 256, 1, 1), 1, False),
    ],
)
def test_convolutions_that_pay(shape, groups, pays):
    library = build.load("codebook", codebook.DECLARATIONS)
    wide = library is not None and build.PATHS[library.path()] == "avx512"
    assert _pays(shape, groups) == (pays and wide)


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
