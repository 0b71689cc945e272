"""Low rank on data: against the fits that know less, and in the cases where it must agree with them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from factors.layers import apart
from penjing.core.errors import PlanError
from penjing.factors.regression import Moments, chained, energies, nonlinear, principal, reduced_rank, responses
from penjing.factors.svd import svd


@pytest.fixture
def conv() -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(6, 10, 3, stride=2, padding=1).double()


def pictures(seed: int) -> Tensor:
    """Return pictures whose channels are correlated."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(6, 6, generator=generator).double() * torch.logspace(0, -2, 6).double()
    return torch.einsum("nchw,dc->ndhw", torch.randn(40, 6, 8, 8, generator=generator).double(), mix)


def rows(x: Tensor) -> Tensor:
    return x.detach().transpose(0, 1).flatten(1).T


def patches(x: Tensor) -> Tensor:
    return F.unfold(x, 3, padding=1, stride=2).transpose(1, 2).flatten(0, 1)


def test_data_beats_weights_and_the_asymmetric_fit_beats_both(conv: nn.Conv2d) -> None:
    x = pictures(1)
    disturbed = x + 0.3 * x.roll(1, 1)  # what comes from layers that are approximated already
    y, seen = rows(conv(x)), rows(conv(disturbed))
    moments = Moments.of(seen[:300], y[:300]) + Moments.of(seen[300:], y[300:])
    for rank in (2, 4, 7):

        def lost(chain: nn.Module) -> float:
            return float((rows(chain(disturbed)) - y).square().sum())

        asymmetric = lost(chained(conv, reduced_rank(moments, rank)))
        symmetric = lost(chained(conv, principal(Moments.of(y, y), rank)))
        assert asymmetric < symmetric < lost(svd().split(conv, rank))
        clean = Moments.of(y, y)
        lost_clean = float((rows(chained(conv, principal(clean, rank))(x)) - y).square().sum())
        assert lost_clean == pytest.approx(len(y) * float(energies(clean)[rank:].sum()), rel=1e-6)


def test_full_rank_is_the_layer(conv: nn.Conv2d) -> None:
    x = pictures(2)
    y = rows(conv(x))
    for fit in (principal, reduced_rank):
        chain = chained(conv, fit(Moments.of(y, y), 10))
        assert apart(conv, chain, x) < 1e-5
        assert apart(chain, svd().merge(chain), x) < 1e-10


def test_white_patches_give_the_decomposition_of_the_weights(conv: nn.Conv2d) -> None:
    eye, zero = torch.eye(54, dtype=torch.float64), torch.zeros(54, dtype=torch.float64)
    moments = responses(conv, Moments(1, zero, zero, eye, eye, eye))
    on_data = svd().merge(chained(conv, principal(moments, 4)))
    on_weights = svd().merge(svd().split(conv, 4))
    torch.testing.assert_close(on_data.weight, on_weights.weight)


def test_moments_of_patches_are_those_of_responses(conv: nn.Conv2d) -> None:
    x, other = pictures(3), pictures(4)
    through = responses(conv, Moments.of(patches(other), patches(x)))
    direct = Moments.of(rows(conv(other)), rows(conv(x)))
    for name in ("x", "y", "xx", "yx", "yy"):
        torch.testing.assert_close(getattr(through, name), getattr(direct, name))


def test_the_nonlinear_fit_is_nearer_behind_the_relu(conv: nn.Conv2d) -> None:
    y = rows(conv(pictures(5)))
    y = y - 0.5 * y.std(0)  # most are off, and only the others matter

    def lost(x: Tensor) -> float:
        return float((x.relu() - y.relu()).square().sum())

    assert lost(nonlinear(y, y, 3)(y)) < 0.9 * lost(reduced_rank(Moments.of(y, y), 3)(y))


def test_bad_samples_and_ranks_are_refused(conv: nn.Conv2d) -> None:
    y = rows(conv(pictures(6)))
    with pytest.raises(PlanError, match="have a rank from 1 to 10; got 11"):
        reduced_rank(Moments.of(y, y), 11)
    with pytest.raises(PlanError, match="not finite"):
        Moments.of(y, y * torch.nan)
    with pytest.raises(PlanError, match="as many of x as of y"):
        Moments.of(y, y[1:])
    with pytest.raises(PlanError, match=r"body is grouped"):
        chained(nn.Conv2d(10, 10, 3, groups=2), principal(Moments.of(y, y), 2), "body")
    with pytest.raises(PlanError, match=r"body has 12 responses; the map is of 10"):
        chained(nn.Conv2d(10, 12, 3), principal(Moments.of(y, y), 2), "body")
