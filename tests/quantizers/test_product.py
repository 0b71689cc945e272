"""Product quantization: codewords found again, less output error by what layers read, and what is stored."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from scipy.cluster.vq import kmeans2
from torch import nn

from penjing.core.errors import PlanError
from penjing.quantizers import vectors as rounds
from penjing.quantizers.product import moments, product
from penjing.quantizers.vectors import share

LAYERS = [
    (nn.Conv2d(8, 16, 3, padding=1), (6, 8, 7, 7)),
    (nn.Conv2d(8, 16, 3, stride=2, groups=4, padding_mode="circular", padding=1), (6, 8, 9, 9)),
    (nn.Conv2d(12, 12, 3, dilation=2, groups=12), (6, 12, 9, 9)),
    (nn.Conv2d(6, 20, 1), (6, 6, 5, 5)),
    (nn.Linear(40, 12), (64, 40)),
    (nn.Linear(40, 12), (4, 9, 40)),
]
NAMES = ["3x3", "groups", "depthwise", "1x1", "linear", "tokens"]


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def sample(size):
    """What a layer reads: of very different strength from channel to channel, and correlated."""
    x = torch.randn(size, generator=draw(1)).cumsum(-1)
    axis = 1 if len(size) == 4 else len(size) - 1
    return x * torch.logspace(-1, 1, size[axis]).view(*[-1 if d == axis else 1 for d in range(len(size))])


def started(layer, bits=3, samples=None, **options):
    made = product(**options).weights(tuple(layer.weight.shape), bits)
    if samples is not None:
        made.see(samples, layer)
    made.start(layer.weight)
    return made


def run(layer, weight, x):
    with torch.no_grad():
        return torch.func.functional_call(layer, {"weight": weight}, (x,))


@pytest.mark.parametrize(("layer", "size"), LAYERS, ids=NAMES)
def test_moments_are_those_of_what_the_weight_is_multiplied_by(layer, size):
    """The output of a filter that has one block alone is X v, whose mean square is v' M v."""
    x, width = sample(size), product()._table(tuple(layer.weight.shape), 3)[1]
    found = moments(x, layer, width)
    per_filter = layer.weight[0].numel() // width
    assert found.shape == (len(found), width, width)
    for filter_, block in ((0, 0), (len(layer.weight) - 1, per_filter - 1)):
        group = filter_ * (len(found) // per_filter) // len(layer.weight)
        vector = torch.randn(width, generator=draw(block))
        weight = torch.zeros(len(layer.weight), per_filter, width)
        weight[filter_, block] = vector
        y = run(layer, weight.view_as(layer.weight), x) - run(layer, torch.zeros_like(layer.weight), x)
        y = y.movedim(1, -1)[..., filter_] if len(size) == 4 else y[..., filter_]
        told = vector.double() @ found[group * per_filter + block] @ vector.double()
        assert float(y.double().square().mean()) == pytest.approx(float(told), rel=1e-4)


@pytest.mark.parametrize(("layer", "size"), LAYERS, ids=NAMES)
def test_what_is_seen_lessens_the_error_of_the_output(layer, size):
    x = sample(size)
    y = run(layer, layer.weight, x)
    blind, seeing = (
        float((run(layer, started(layer, samples=one)(layer.weight), x) - y).square().mean()) for one in (None, x)
    )
    assert seeing < 0.97 * blind


@pytest.mark.parametrize("seen", [False, True])
def test_eight_codewords_are_found_again(seen):
    words = torch.randn(8, 9, generator=draw())
    layer = nn.Conv2d(16, 32, 3)
    weight = words[torch.randint(8, (32 * 16,), generator=draw(2))].view(32, 16, 3, 3)
    layer.weight.data.copy_(weight)
    made = started(layer, 3, sample((4, 16, 8, 8)) if seen else None)
    torch.testing.assert_close(made(weight), weight, rtol=1e-5, atol=1e-6)


def test_without_correlation_the_rounds_are_those_of_k_means(monkeypatch):
    monkeypatch.setattr(rounds, "LITTLE", 0)  # to the end
    v = torch.randn(4, 60, 5, generator=draw(), dtype=torch.float64)
    eye = torch.eye(5, dtype=torch.float64).expand(4, 5, 5)
    first = rounds._spread(v, v.float(), eye, 8, draw(1))
    centroids, labels = kmeans2(v.view(-1, 5).numpy(), first.numpy(), iter=100, minit="matrix")
    for seen in (None, 7 * eye):
        table, codes = share(v, seen, 8, draw(1))
        assert codes.tolist() == labels.tolist()
        torch.testing.assert_close(table, torch.from_numpy(centroids))


def test_no_round_raises_the_error(monkeypatch):
    errors, nearest = [], rounds._nearest

    def noting(*args):
        codes, error = nearest(*args)
        errors.append(error)
        return codes, error

    monkeypatch.setattr(rounds, "_nearest", noting)
    root = torch.randn(6, 5, 5, generator=draw(), dtype=torch.float64)
    share(torch.randn(6, 100, 5, generator=draw(1), dtype=torch.float64), root @ root.mT, 16, draw(2))
    assert len(errors) > 5
    assert all(after <= before * (1 + 1e-6) for before, after in pairwise(errors))


def test_a_level_without_vectors_splits_the_fullest():
    v = torch.tensor([[[0.0], [0.1], [0.9], [1.0], [9.0]]], dtype=torch.float64)
    table = torch.tensor([[0.5], [9.0], [50.0]], dtype=torch.float64)
    found = rounds._fitted(v, torch.eye(1, dtype=torch.float64)[None], torch.tensor([[0, 0, 0, 0, 1]]), table, draw())
    assert found[:2].flatten().tolist() == pytest.approx([0.5, 9.0])
    assert 0 < abs(float(found[2] - found[0])) < 1e-6


def test_gradient_of_a_vector_is_the_mean_over_its_places():
    layer = nn.Conv2d(8, 16, 3)
    made, weight = started(layer), layer.weight.detach().clone().requires_grad_()
    dense = torch.randn(weight.shape, generator=draw(4))
    (made(weight) * dense).sum().backward()
    codes = made.codes.long()
    want = torch.zeros(8, 9).index_add(0, codes, dense.view(-1, 9)) / torch.bincount(codes, minlength=8)[:, None]
    torch.testing.assert_close(made.table.grad.view(8, 9), want)
    assert weight.grad is None
    assert all(one.ndim < 2 for one in made.parameters())  # which weight decay spares


@pytest.mark.parametrize("weight", [torch.zeros(16, 8), torch.full((16, 8), 0.3), torch.eye(16)[:, :8]], ids=str)
@pytest.mark.parametrize("samples", [None, torch.zeros(5, 8)], ids=["blind", "dead"])
def test_weights_with_little_to_cluster_are_kept(weight, samples):
    layer = nn.Linear(8, 16)
    layer.weight.data.copy_(weight)
    torch.testing.assert_close(started(layer, 8, samples)(weight), weight)


@pytest.mark.parametrize(
    ("shape", "bits", "options", "levels", "width"),
    [
        ((64, 64, 3, 3), 8, {}, 256, 9),
        ((64, 64, 3, 3), 8, {"kernel": 18}, 256, 18),
        ((64, 64, 1, 1), 8, {"point": 8}, 128, 8),
        ((64, 30), 8, {}, 160, 3),
        ((16, 1, 3, 3), 4, {}, 4, 9),
        ((2, 1, 3, 3), 4, {}, 1, 9),
        ((16, 3, 7, 7), 2, {}, 4, 7),
    ],
)
def test_widths_divide_a_filter_and_a_level_has_four_vectors(shape, bits, options, levels, width):
    weight = torch.randn(shape, generator=draw())
    made = product(**options).weights(shape, bits)
    made.start(weight)
    found = made.levels(weight)
    assert (len(found.table), found.width) == (levels, width)
    assert torch.equal(found.values(), made(weight))
    told = product(**options).stored(shape, bits)
    assert told == found.bits * found.codes.numel() + 32 * found.table.numel()


def test_the_same_weight_gives_the_same_codes():
    layer = LAYERS[0][0]
    one, other = started(layer), started(layer)
    assert torch.equal(one.codes, other.codes)
    assert torch.equal(one.table, other.table)
    assert F.mse_loss(one(layer.weight), layer.weight) < layer.weight.var()


def test_an_option_that_cannot_be():
    with pytest.raises(PlanError, match="kernel"):
        product(kernel=0)
