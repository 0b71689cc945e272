"""A batch norm's sign as a comparison: known answers, all signs of gamma, and integers on the border."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from penjing.quantizers.base import sign
from penjing.quantizers.threshold import fold, fold_integers

Norm = tuple[Tensor, Tensor, Tensor, Tensor]
KNOWN = [torch.tensor(v, dtype=torch.float64) for v in ([2.0, -1.5, 0], [0.4, -0.2, -0.1], [0.3, 0.1, 0], [1.5, 2, 1])]


def norm(channels: int, seed: int) -> Norm:
    """Gamma, beta, mean, variance; some gammas and betas are 0, and means are integers."""
    g = torch.Generator().manual_seed(seed)
    gamma, beta, mean = (torch.randn(channels, generator=g) for _ in range(3))
    gamma[::5], beta[1::3], mean = 0, 0, (3 * mean).round()
    return gamma, beta, mean, torch.rand(channels, generator=g) + 0.1


def reference(x: Tensor, norm: Norm, eps: float) -> Tensor:
    gamma, beta, mean, var = (v.to(x.dtype) for v in norm)
    return sign(F.batch_norm(x, mean, var, gamma, beta, eps=eps))


def test_known_answers() -> None:
    gamma, beta, mean, deviation = KNOWN
    found = fold(gamma, beta, mean, deviation.square(), eps=0.0)
    torch.testing.assert_close(found.theta[:2].float(), torch.tensor([0.0, -1 / 6]))
    assert found.flip.tolist() == [False, True, False]
    x = torch.tensor([-1.0, -0.17, -0.16, 1.0]).view(4, 1).expand(4, 3)
    assert found(x).T.tolist() == [[-1, -1, -1, 1], [1, 1, -1, -1], [-1, -1, -1, -1]]


def test_a_channel_of_one_sign() -> None:
    zero, one = torch.zeros(2), torch.ones(2)
    found = fold(zero, torch.tensor([0.0, -0.1]), one, one, eps=1e-5)
    assert found(torch.tensor([[-9.0, 9.0], [9.0, -9.0]])).tolist() == [[1, -1], [1, -1]]


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 1000), scaled=st.booleans())
def test_comparing_is_normalising(seed: int, scaled: bool) -> None:
    values = norm(16, seed)
    x = 4 * torch.randn(8, 16, 3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    scale = torch.rand(16, generator=torch.Generator().manual_seed(seed + 1)) if scaled else torch.ones(16)
    scaled_x = x * scale.double().view(-1, 1, 1)
    assert torch.equal(fold(*values, 1e-5, scale)(x), reference(scaled_x, values, 1e-5))


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 1000), terms=st.sampled_from([1, 9, 576]), scaled=st.booleans())
def test_comparing_integers_is_normalising_them(seed: int, terms: int, scaled: bool) -> None:
    values = norm(16, seed)
    scale = torch.rand(16, generator=torch.Generator().manual_seed(seed)) if scaled else torch.ones(16)
    found = fold_integers(*values, 1e-5, terms, scale)
    assert found.theta.dtype == torch.int32
    sums = torch.arange(-terms, terms + 1)[:, None].expand(-1, 16)[:, :, None, None]
    expected = reference(sums.float() * scale.view(-1, 1, 1), values, 1e-5)
    assert torch.equal(found(sums).float(), expected)
    assert (found.theta >= -terms - 1).all() and (found.theta <= terms + 1).all()


@pytest.mark.parametrize("gamma", [1.0, -1.0])
def test_a_sum_on_the_threshold_is_one(gamma: float) -> None:
    one, zero = torch.ones(1), torch.zeros(1)
    found = fold_integers(gamma * one, zero, 3 * one, one, 0.0, terms=9)
    assert found.theta.item() == 3
    assert found(torch.tensor([[2], [3], [4]])).flatten().tolist() == ([-1, 1, 1] if gamma > 0 else [1, 1, -1])
