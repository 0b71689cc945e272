"""The rules that choose ranks, for one layer and for many."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from factors.layers import error
from penjing.core.errors import PlanError
from penjing.factors.cp import cp
from penjing.factors.layer import LayerSpec, read
from penjing.factors.ranks import by_energy, by_evbmf, by_ratio, rounded
from penjing.factors.svd import svd
from penjing.factors.tucker2 import tucker2


def noisy(groups: int = 1) -> nn.Conv2d:
    """Return a convolution whose channels span 4 (in) and 6 (out) directions, with noise."""
    random = torch.Generator().manual_seed(0)
    draw = [torch.randn(n, generator=random).double() for n in ([32, 6], [6, 4, 3, 3], [48, 4])]
    conv = nn.Conv2d(48 * groups, 32 * groups, 3, groups=groups, bias=False).double()
    weight = torch.einsum("tq,qpij,sp->tsij", *draw)
    weight = weight + 0.5 * torch.randn(weight.shape, generator=random).double()
    conv.weight.data = weight.repeat(groups, 1, 1, 1)
    return conv


@pytest.mark.parametrize("groups", [1, 2])
def test_evbmf_finds_the_ranks_of_a_kernel_and_may_be_weakened(groups: int) -> None:
    axes = tucker2().spectra(noisy(groups))
    assert by_evbmf(axes) == (4, 6)
    assert by_evbmf(axes, least=5) == (5, 6)
    assert by_evbmf(axes, weaken=0) == (48, 32)
    assert by_evbmf(axes, weaken=0.5) == (26, 19)
    noise = nn.Conv2d(48, 32, 3).double()
    noise.weight.data = torch.randn(noise.weight.shape, generator=torch.Generator().manual_seed(0)).double()
    assert by_evbmf(tucker2().spectra(noise)) == (48, 32), "noise alone leaves no empty layer"
    with pytest.raises(PlanError, match="is no rank of a matrix"):
        by_evbmf(cp().spectra(noisy()))


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99, 1.0])
def test_the_share_of_energy_is_kept(share: float) -> None:
    conv = noisy()
    whole = float(conv.weight.detach().square().sum())
    for one in (svd(), svd("spatial"), tucker2()):
        ranks = by_energy(one.spectra(conv), share)
        assert error(conv, one.merge(one.split(conv, ranks))) <= (1 - share + 1e-9) * whole
    (axis,) = svd().spectra(conv)
    (r,) = by_energy([axis], share)
    assert r == 1 or float(axis.energies[: r - 1].sum()) < share * whole


@pytest.mark.parametrize("ratio", [1.5, 2.0, 4.0])
def test_the_ratio_is_reached_with_the_largest_ranks(ratio: float) -> None:
    spec = LayerSpec("conv", 64, 96, (3, 3), (2, 2), (1, 1), bias=True)
    for one, size in itertools.product((svd(), svd("input"), tucker2(), cp()), (None, (14, 14))):
        ranks, full = by_ratio(one, spec, ratio, size), one.full(spec)

        def spent(r: tuple[int, ...], one: object = one, size: object = size) -> int:
            cost = one.cost(spec, r, size or (14, 14))  # type: ignore[attr-defined]
            return int(cost.macs if size else cost.params)

        limit = (spec.macs(size) if size else spec.params) / ratio
        assert spent(ranks) <= limit
        more = tuple(min(n, r + max(1, n // min(full) + 1)) for r, n in zip(ranks, full, strict=True))
        assert spent(more) > limit


def test_wrong_wishes_are_refused() -> None:
    spec, axes = read(noisy()), svd().spectra(noisy())
    for call, said in [
        (lambda: by_ratio(svd(), spec, 1.0), "a ratio above 1"), (lambda: by_energy(axes, 0.0), "share of the energy"),
        (lambda: by_energy(axes, 1.5), "share of the energy"), (lambda: by_evbmf(axes, 1.2), "number from 0 to 1"),
    ]:  # fmt: skip
        with pytest.raises(PlanError, match=said):
            call()
    assert rounded((1, 9, 16), (64, 12, 64), 8) == (8, 12, 16)
