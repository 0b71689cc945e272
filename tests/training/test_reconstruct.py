import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nets.hostile import HOSTILE
from penjing.core.errors import TrainError
from penjing.core.layers import Layer
from penjing.graph.graph import Graph
from penjing.graph.patches import patches
from penjing.graph.surgery import cut
from penjing.graph.trace import plain, trace
from penjing.training.recalibrate import recalibrate
from penjing.training.reconstruct import reconstruct


class Body(nn.Module):
    """Base: pictures in, three logits out."""

    width = 16

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, self.width, 3, padding=1)
        self.build()
        self.head = nn.Linear(self.width, 3)

    def forward(self, x):
        return self.head(self.body(F.relu(self.stem(x))).mean((2, 3)))


class Residual(Body):
    def build(self):
        self.a, self.an = nn.Conv2d(16, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24)
        self.b, self.bn = nn.Conv2d(24, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)

    def body(self, x):
        y = self.bn(self.b(F.relu(self.an(self.a(x)))))
        y += x
        return F.relu(y)


class NormFree(Body):
    def build(self):
        self.a, self.b = nn.Conv2d(16, 24, 3, stride=2, padding=2, dilation=2), nn.Conv2d(24, 16, 1)

    def body(self, x):
        return F.relu(self.b(F.relu(self.a(x))))


class PreActivation(Body):
    def build(self):
        self.an, self.a = nn.BatchNorm2d(16), nn.Conv2d(16, 24, 3, padding=1, bias=False)
        self.b = nn.Conv2d(24, 16, 3, padding="same", bias=False)

    def body(self, x):
        return F.relu(x + self.b(F.relu(self.a(self.an(x)))))


class Direct(PreActivation):
    """The stem is read by a batch norm and by the sum behind the branch."""

    def forward(self, x):
        return self.head(self.body(self.stem(x)).mean((2, 3)))


class Functional(Body):
    """Batch norms that are functions of the network's own buffers, and one that has no statistics."""

    def build(self):
        self.a, self.b = nn.Conv2d(16, 24, 3, padding=1, bias=False), nn.Conv2d(24, 16, 1, bias=False)
        self.register_buffer("mean", torch.linspace(-1, 1, 24))
        self.register_buffer("var", torch.linspace(0.5, 2, 24))
        self.bn = nn.BatchNorm2d(16, track_running_stats=False)

    def body(self, x):
        return F.relu(self.bn(self.b(F.relu(F.batch_norm(self.a(x), self.mean, self.var)))))


class Separable(Body):
    def build(self):
        self.a, self.an = nn.Conv2d(16, 24, 1, bias=False), nn.BatchNorm2d(24)
        self.d, self.dn = nn.Conv2d(24, 24, 3, padding=1, groups=24, bias=False), nn.BatchNorm2d(24, affine=False)
        self.g, self.b = nn.Conv2d(24, 24, 3, padding=1, groups=2), nn.Conv2d(24, 16, 1)

    def body(self, x):
        return F.relu(self.b(F.relu(self.g(F.relu(self.dn(self.d(F.relu(self.an(self.a(x)))))))))) + x


class Odd(Body):
    """A weight used twice, a transposed convolution, a weight computed on the fly, reflected padding."""

    def build(self):
        self.twice = nn.Conv2d(16, 16, 3, padding=1)
        self.up = nn.ConvTranspose2d(16, 16, 2, stride=2)
        self.raw = nn.Parameter(torch.randn(16, 16, 1, 1) / 4)
        self.mirror = nn.Conv2d(16, 16, 3, padding=1, padding_mode="reflect")

    def body(self, x):
        x = F.relu(self.twice(F.relu(self.twice(x))))
        return self.mirror(F.conv2d(F.relu(self.up(x)), self.raw * 2))


NETS = (Residual, NormFree, PreActivation, Direct, Separable, Odd)


def made(kind, seed=0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = kind().eval()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d) and module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias)
        recalibrate(model, pictures(5))
    return model


def pictures(seed=0, batches=4):
    generator = torch.Generator().manual_seed(seed)
    # Smooth pictures, so that channels resemble one another as they do in practice.
    return [
        F.interpolate(torch.randn(16, 3, 4, 4, generator=generator), size=10, mode="bilinear") for _ in range(batches)
    ]


def halved(model: nn.Module, seed=0) -> tuple[nn.Module, Graph, dict]:
    graph = trace(model, (pictures()[0][:2],), proof=False)
    rng = np.random.default_rng(seed)
    kept = {s.name: np.sort(rng.permutation(s.size)[: max(1, s.size // 2)]) for s in graph.sites}
    smaller = copy.deepcopy(model)
    cut(smaller, graph, kept)
    return smaller, graph, kept


def wrong(model, other):
    """Return the squared difference on pictures that nobody fitted to, relative to the spread of the original."""
    with torch.no_grad():
        x = torch.cat(pictures(9))
        a, b = model(x), other(x)
    return float((a - b).square().mean() / a.var(0).mean())


@pytest.mark.parametrize("kind", NETS)
def test_it_brings_the_outputs_back_on_unseen_pictures(kind):
    model = made(kind)
    smaller, graph, kept = halved(model)
    rough = copy.deepcopy(smaller)
    recalibrate(rough, pictures())
    names = reconstruct(model, smaller, graph, kept, pictures(batches=16))
    assert names
    assert wrong(model, smaller) < 0.5 * min(wrong(model, rough), wrong(model, halved(model)[0]))


@pytest.mark.parametrize("kind", [*NETS, Functional])
def test_nothing_cut_nothing_changes(kind):
    model = made(kind)
    graph = trace(model, (pictures()[0][:2],), proof=False)
    again = copy.deepcopy(model)
    reconstruct(model, again, graph, {}, pictures())
    with torch.no_grad():
        torch.testing.assert_close(again(pictures(9)[0]), model(pictures(9)[0]), atol=1e-4, rtol=1e-4)


def test_duplicates_are_made_up_for_exactly():
    model = made(Residual)
    with torch.no_grad():
        model.a.weight[12:] = model.a.weight[:12]
        for name in ("weight", "bias", "running_mean", "running_var"):
            tensor = getattr(model.an, name)
            tensor[12:] = tensor[:12]
    graph = trace(model, (pictures()[0][:2],), proof=False)
    kept = {s.name: np.arange(12) for s in graph.sites if s.size == 24}
    smaller = copy.deepcopy(model)
    cut(smaller, graph, kept)
    assert wrong(model, smaller) > 1e-2
    reconstruct(model, smaller, graph, kept, pictures(batches=8), ridge=0.0)
    assert wrong(model, smaller) < 1e-8


def test_one_layer_is_the_brute_force_regression():
    model = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Tanh(), nn.Conv2d(6, 2, 3), nn.Flatten(), nn.Linear(128, 3))
    graph = trace(model.eval(), (pictures()[0][:2],), proof=False)
    kept = {graph.sites[0].name: np.array([0, 2, 3])}
    smaller = copy.deepcopy(model)
    cut(smaller, graph, kept)
    x = torch.cat(pictures())
    with torch.no_grad():
        wanted = model[:3](x).flatten(2).transpose(1, 2).flatten(0, 1).double()
        reconstruct(model, smaller, graph, kept, pictures(), ridge=0.0)
        read = F.unfold(smaller[:2](x), 3).transpose(1, 2).flatten(0, 1).double()
        solution = torch.linalg.lstsq(torch.cat([read, torch.ones(len(read), 1).double()], 1), wanted).solution
    torch.testing.assert_close(smaller[2].weight.flatten(1).double(), solution[:-1].T, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(smaller[2].bias.double(), solution[-1], atol=1e-3, rtol=1e-3)


def test_the_batch_norm_means_the_same_in_training():
    model = made(Residual)
    smaller, graph, kept = halved(model)
    reconstruct(model, smaller, graph, kept, pictures())
    x = torch.cat(pictures())
    with torch.no_grad():
        evaluated = smaller(x)
        trained = smaller.train()(x)
    torch.testing.assert_close(evaluated, trained, atol=0.05, rtol=0.05)


def test_zero_weights_stay_zero():
    model = made(Separable)
    graph = trace(model, (pictures()[0][:2],), proof=False)
    sparse = copy.deepcopy(model)
    with torch.no_grad():
        for p in sparse.parameters():
            if p.dim() > 1:
                p.mul_(p.abs() > p.abs().median())
    before, zeros = wrong(model, sparse), {n: p == 0 for n, p in sparse.named_parameters() if p.dim() > 1}
    reconstruct(model, sparse, graph, {}, pictures(batches=16))
    assert all((p[zeros[n]] == 0).all() for n, p in sparse.named_parameters() if n in zeros)
    assert wrong(model, sparse) < 0.5 * before


def test_odd_layers_are_left_alone_and_not_named():
    model = made(Odd)
    smaller, graph, kept = halved(model)
    before = {name: p.clone() for name, p in smaller.named_parameters()}
    names = reconstruct(model, smaller, graph, kept, pictures())
    assert not {"twice", "up"} & set(names)
    assert {"stem", "mirror", "head"} <= set(names)
    for name in ("twice.weight", "up.weight", "raw"):
        assert torch.equal(dict(smaller.named_parameters())[name], before[name])


def test_the_original_its_modes_and_the_seed():
    model = made(Residual).train()
    before = copy.deepcopy(model.state_dict())
    smaller, graph, kept = halved(model)
    again = copy.deepcopy(smaller)
    reconstruct(model, smaller.train(), graph, kept, pictures(), seed=1)
    reconstruct(model, again, graph, kept, pictures(), seed=1)
    assert model.training and smaller.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in smaller.state_dict().items())


def test_a_failure_leaves_the_model_as_it_was():
    model = made(Residual)
    smaller, graph, kept = halved(model)
    before = copy.deepcopy(smaller.state_dict())
    spoilt = [*pictures(), torch.full((16, 3, 10, 10), torch.nan)]
    with pytest.raises(TrainError, match="stem reads or should write values that are not finite"):
        reconstruct(model, smaller, graph, kept, spoilt)
    assert all(torch.equal(tensor, before[name]) for name, tensor in smaller.state_dict().items())
    with pytest.raises(TrainError, match="unlabelled samples"):
        reconstruct(model, smaller, graph, kept, [])


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("groups", [1, 2])
def test_patches_are_those_of_unfold(stride, dilation, groups):
    x = torch.randn(2, 4, 9, 7)
    conv = nn.Conv2d(4, 6, 3, stride=stride, padding=(2, 1), dilation=dilation, groups=groups)
    size = tuple(conv(x).shape[2:])
    units = np.arange(4)
    layer = Layer("conv", "conv", "w", None, units, np.arange(6), 4, 6, groups, (3, 3), (stride, stride), (2, 1),
                  (dilation, dilation), False, (9, 7), size)  # fmt: skip
    every = torch.arange(size[0] * size[1]).expand(2, -1)
    unfolded = F.unfold(x, 3, dilation, (2, 1), stride).transpose(1, 2).flatten(0, 1)
    torch.testing.assert_close(patches(x, -3, layer, every).flatten(1), unfolded)


@pytest.mark.parametrize(
    "name", ["mixer_over_positions", "linear_over_width", "unet_upsample", "depthwise", "shared_norm"]
)
def test_hostile_networks_are_refitted_or_left_alone(name):
    build, inputs = HOSTILE[name].build, HOSTILE[name].inputs
    model = plain(build())
    args, kwargs = inputs()
    graph = trace(model, args, kwargs, proof=False)
    kept = {s.name: np.arange(-(-s.size // 2)) for s in graph.sites}
    smaller = copy.deepcopy(model)
    cut(smaller, graph, kept)
    batches = [torch.randn(args[0].shape, generator=torch.Generator().manual_seed(i)) for i in range(8)]
    with torch.no_grad():
        before = [smaller(x) for x in batches]
        reconstruct(model, smaller, graph, kept, batches)
        wrong = [sum(float((a - model(x)).square().mean()) for a, x in zip(outs, batches, strict=True))
                 for outs in (before, [smaller(x) for x in batches])]  # fmt: skip
    assert wrong[1] <= wrong[0]
