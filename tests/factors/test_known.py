"""Known answers: counts, errors and kernels built so that a factorisation must find them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from factors.layers import apart, error
from penjing.core.errors import MissingExtra, PlanError
from penjing.core.registry import build
from penjing.factors import cp as cp_module
from penjing.factors import cp_fit
from penjing.factors.bicluster import bicluster
from penjing.factors.btd import btd
from penjing.factors.cp import cp
from penjing.factors.depthwise_separable import depthwise_separable
from penjing.factors.layer import LayerSpec, read
from penjing.factors.lowrank_basis import lowrank_basis
from penjing.factors.monochromatic import monochromatic
from penjing.factors.svd import svd
from penjing.factors.tucker2 import hooi, tucker2


def holding(weight: Tensor) -> nn.Conv2d:
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], padding=1, bias=False).double()
    conv.weight.data = weight.double()
    return conv


def kernel(t: int, s: int, k: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(t, s, k, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def relative(factorization: object, weight: Tensor, ranks: object) -> float:
    conv = holding(weight)
    merged = factorization.merge(factorization.split(conv, ranks))  # type: ignore[attr-defined]
    return math.sqrt(error(conv, merged) / float(weight.square().sum()))


@pytest.mark.parametrize(
    ("spec", "ranks", "params"),
    [
        ("svd", (128,), 327_680),
        ({"svd": {"form": "spatial"}}, (128,), 196_608),
        ("tucker2", (64, 64), 69_632),
        ({"cp": {"modes": 4}}, (128,), 66_304),
        ("cp", (128,), 66_688),
        ("btd", (32,), 70_144),
        ("depthwise_separable", (1,), 67_840),
        ({"lowrank_basis": {"vertical": 0.25, "horizontal": 0.25}}, (256,), 2 * 64 * 256 * 3 + 128 * 256 * 9 + 256**2),
    ],
    ids=str,
)
def test_counts_of_a_convolution_256_to_256(spec: object, ranks: tuple[int, ...], params: int) -> None:
    layer = LayerSpec("conv", 256, 256, (3, 3), (1, 1), (1, 1))
    cost = build("factorization", spec).cost(layer, ranks, (14, 14))
    assert (cost.params, cost.macs) == (params, 196 * params)
    assert cost.per_position == params
    assert layer.macs((14, 14)) == 115_605_504


def test_full_ranks_and_where_svd_pays() -> None:
    for (s, t), form, full, breaks in [
        ((64, 64), "output", 64, 57.6), ((256, 512), "output", 512, 418.9), ((64, 64), "spatial", 192, 96),
    ]:  # fmt: skip
        layer, one = LayerSpec("conv", s, t, (3, 3), (1, 1), (1, 1)), svd(form)  # type: ignore[arg-type]
        assert one.full(layer) == (full,)
        pays = [r for r in range(1, full + 1) if one.pays(layer, (r,), (8, 8))]
        assert pays[-1] == math.ceil(breaks) - 1
    strided = LayerSpec("conv", 64, 64, (3, 3), (2, 2), (1, 1))
    reduced = svd("input").cost(strided, (32,), (28, 28))
    assert reduced.macs == 28 * 28 * 64 * 32 + 14 * 14 * 32 * 64 * 9, "a 1 x 1 in front runs at the input's size"


def test_a_linear_layer_by_singular_values() -> None:
    linear = nn.Linear(30, 20)
    factorization, x = svd("spatial"), torch.randn(5, 30)
    chain = factorization.split(linear, 20)
    assert [type(stage) for stage in chain] == [nn.Linear, nn.Linear]
    assert apart(linear, chain, x) < 1e-6
    low = factorization.merge(factorization.split(linear, 7))
    u, s, v = torch.linalg.svd(linear.weight.detach(), full_matrices=False)
    torch.testing.assert_close(low.weight, u[:, :7] * s[:7] @ v[:7], atol=1e-6, rtol=0)
    first, last = (stage.weight.detach() for stage in factorization.split(linear, 7))
    torch.testing.assert_close(first.norm(dim=1), s[:7].sqrt(), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(last.norm(dim=0), s[:7].sqrt(), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("form", ["output", "input", "spatial"])
def test_what_svd_loses_are_the_energies_left_out(form: str) -> None:
    conv, one = holding(kernel(12, 8)), svd(form)  # type: ignore[arg-type]
    (axis,) = one.spectra(conv)
    for rank in (1, 5, 7):
        assert error(conv, one.merge(one.split(conv, rank))) == pytest.approx(float(axis.energies[rank:].sum()))


def test_tucker_is_as_good_as_tensorly_and_its_error_is_what_the_core_lacks() -> None:
    tensorly = pytest.importorskip("tensorly")
    from tensorly.decomposition import partial_tucker

    weight = kernel(16, 12)
    first, core, last = hooi(weight, 5, 7)
    torch.testing.assert_close(first.T @ first, torch.eye(5, dtype=torch.float64))
    lost = float((weight - torch.einsum("tq,qpij,sp->tsij", last, core, first)).square().sum())
    assert lost == pytest.approx(float(weight.square().sum() - core.square().sum()))
    with tensorly.backend_context("numpy"):
        _, errors = partial_tucker(weight.numpy(), [7, 5], modes=[0, 1], tol=1e-4)
    assert math.sqrt(lost) <= 1.002 * errors[-1] * float(weight.norm())
    assert btd(5, 7).merge(btd(5, 7).split(holding(weight), 1)).weight.shape == weight.shape
    assert relative(btd(8, 8, 60), weight, 1) == pytest.approx(relative(tucker2(), weight, (8, 8)), rel=0.01)


def outer(*vectors: Tensor) -> Tensor:
    return torch.einsum("i,j,k->ijk", *vectors)


def test_cp_of_a_degenerate_tensor_is_bounded_where_plain_least_squares_diverges() -> None:
    pytest.importorskip("tensorly")
    a, b = torch.eye(2, dtype=torch.float64)
    tensor = outer(a, a, b) + outer(a, b, a) + outer(b, a, a)
    plain = [float(cp_fit.largest(cp_module.plain(tensor, 2, sweeps))) for sweeps in (60, 400)]
    stable = [float(cp_fit.largest(cp_fit.fit(tensor, 2, sweeps))) for sweeps in (60, 400)]
    assert plain[1] > 1.5 * plain[0] > 1.5 * float(tensor.norm())
    assert max(stable) < 1.05 * float(tensor.norm())
    assert cp_fit.squared_error(tensor, cp_fit.fit(tensor, 2)) < 0.02 * tensor.square().sum()


def test_cp_finds_a_tensor_of_its_rank_and_never_loses_more_than_its_start() -> None:
    generator = torch.Generator().manual_seed(1)
    parts = [torch.randn(n, 4, generator=generator, dtype=torch.float64) for n in (12, 10, 9)]
    weight = cp_fit.whole(parts).reshape(12, 10, 3, 3)
    assert relative(cp(sweeps=300), weight, 4) < 1e-6
    noisy = kernel(10, 8)
    (axis,) = cp().spectra(holding(noisy))
    assert axis.energies.sum() == pytest.approx(float(noisy.square().sum()))
    lost = relative(cp(), noisy, 20) ** 2 * float(noisy.square().sum())
    assert lost < 0.9 * float(axis.energies[20:].sum())


def test_the_sensitivity_is_the_expected_change_under_noise_and_the_stable_fit_has_less() -> None:
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(n, 5, generator=generator, dtype=torch.float64) for n in (8, 7, 6)]
    changes = []
    for _ in range(400):
        noisy = [1e-4 * torch.randn(f.shape, generator=generator, dtype=torch.float64) + f for f in parts]
        changes.append(float((cp_fit.whole(noisy) - cp_fit.whole(parts)).square().sum()) / 1e-8)
    assert sum(changes) / len(changes) == pytest.approx(float(cp_fit.sensitivity(parts)), rel=0.05)
    pytest.importorskip("tensorly")
    tensor = cp_fit.whole(parts)
    tensor += 0.1 * tensor.std() * torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
    stable, plain = cp_fit.fit(tensor, 12), cp_module.plain(tensor, 12)
    assert cp_fit.sensitivity(stable) < 0.7 * cp_fit.sensitivity(plain)
    assert cp_fit.squared_error(tensor, stable) < 1.2 * cp_fit.squared_error(tensor, plain)


def test_plain_cp_without_tensorly_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorly", None)
    with pytest.raises(MissingExtra, match=r"pip install 'penjing\[lowrank\]'"):
        cp(fit="plain").split(holding(kernel(4, 4)), 2)


def test_blocks_are_found_again() -> None:
    generator = torch.Generator().manual_seed(0)
    draw = [torch.randn(n, generator=generator, dtype=torch.float64) for n in ([3, 20, 4], [3, 4, 2, 3, 3], [3, 16, 2])]
    weight = torch.einsum("gtq,gqpij,gsp->tsij", *draw)
    assert relative(btd(2, 4, 150), weight, 3) < 1e-5


def test_depthwise_separable_is_the_best_for_each_channel() -> None:
    weight = kernel(10, 6)
    squared = sum(float(torch.linalg.svdvals(weight[:, s].flatten(1))[2:].square().sum()) for s in range(6))
    assert relative(depthwise_separable(), weight, 2) == pytest.approx(
        math.sqrt(squared / float(weight.square().sum()))
    )


def test_colours_are_found_whatever_their_signs() -> None:
    generator = torch.Generator().manual_seed(3)
    colours = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    mixed = colours[torch.randperm(16, generator=generator) % 4]
    signs = torch.randn(16, 1, 5, 5, generator=generator, dtype=torch.float64)
    conv = nn.Conv2d(3, 16, 5, stride=2, padding=2).double()
    conv.weight.data = mixed[:, :, None, None] * signs
    one = monochromatic()
    chain = one.split(conv, 4)
    x = torch.randn(2, 3, 17, 15)
    assert apart(conv, chain, x) < 1e-10
    assert apart(conv, one.merge(chain), x) < 1e-10
    assert one.cost(read(conv), (4,), (17, 15)).macs == 3 * 4 * 17 * 15 + 16 * 25 * 9 * 8
    (axis,) = one.spectra(conv)
    assert axis.energies[4:].abs().max() < 1e-9 * axis.energies[0]
    with pytest.raises(
        PlanError, match=r"stem has 16 filters, which 5 colours cannot share equally; .* 1, 2, 4, 8, 16"
    ):
        one.split(conv, 5, "stem")
    with pytest.raises(PlanError, match="is no first layer of a picture"):
        one.split(nn.Conv2d(8, 8, 3), 2)


def test_blocks_behind_permuted_channels_are_found() -> None:
    generator = torch.Generator().manual_seed(1)
    weight = torch.zeros(12, 9, 3, 3, dtype=torch.float64)
    for i in range(3):
        weight[4 * i : 4 * i + 4, 3 * i : 3 * i + 3] = torch.randn(4, 3, 3, 3, generator=generator, dtype=torch.float64)
    rows, columns = torch.randperm(12, generator=generator), torch.randperm(9, generator=generator)
    one = bicluster(3, 3)
    _, _, blocks = one._blocks(weight[rows][:, columns])
    assert sorted(float(b.square().sum()) > 0 for row in blocks for b in row) == [False] * 6 + [True] * 3
    conv = holding(weight[rows][:, columns])
    chain = one.split(conv, (3, 4))
    assert apart(conv, chain, torch.randn(2, 9, 8, 8)) < 1e-10


@pytest.mark.parametrize("init", ["backward", "forward"])
def test_a_basis_keeps_variance_through_twenty_layers(init: str) -> None:
    one = lowrank_basis(join=False, init=init)  # type: ignore[arg-type]
    conv = nn.Conv2d(64, 64, 3, padding=1)
    layers = [layer for i in range(20) for layer in (one.split(conv, 64, f"conv{i}"), nn.ReLU())]
    x = torch.randn(4, 64, 12, 12, generator=torch.Generator().manual_seed(0), requires_grad=True)
    y = nn.Sequential(*layers)(x)
    if init == "forward":
        ratio = float(y.detach().square().mean() / x.detach().square().mean())
    else:
        seed = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
        (gradient,) = torch.autograd.grad(y, x, seed)
        ratio = float(gradient[..., 4:-4, 4:-4].var() / seed.var())
    assert 0.2 < ratio < 3


@pytest.mark.parametrize("join", [True, False])
@pytest.mark.parametrize("padding", [(2, 3), "same"], ids=str)
def test_a_basis_has_the_layers_geometry_and_merges(join: bool, padding: tuple[int, int] | str) -> None:
    stride = (1, 1) if padding == "same" else (2, 1)
    conv = nn.Conv2d(5, 8, 3, stride, padding, dilation=(2, 1))
    one = lowrank_basis(vertical=0.4, horizontal=0.3, join=join)
    chain, x = one.split(conv, 8), torch.randn(2, 5, 11, 9)
    for bias in (p for name, p in chain.named_parameters() if name.endswith("bias")):
        nn.init.normal_(bias)
    assert chain(x).shape == conv(x).shape
    cost = one.cost(read(conv), (8,), (11, 9))
    assert cost.params == sum(p.numel() for p in chain.parameters())
    assert cost.sizes[0] == tuple(chain[0](x).shape[1:])
    assert apart(chain, one.merge(chain), x) < 1e-6
    again = one.split(conv, 8)
    assert torch.equal(again[0].vertical.weight, chain[0].vertical.weight.float())
    with pytest.raises(PlanError, match="less than half its kernel"):
        one.split(nn.Conv2d(5, 8, 3), 8)
    with pytest.raises(PlanError, match="drawn anew"):
        one.spectra(conv)
