"""Codebooks: the known answer, zeros that stay, gradients as written out, and weights with little to cluster."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from penjing.core.errors import PlanError
from penjing.quantizers.codebook import cluster, codebook

VECTOR = torch.tensor([[0.9, -0.1, 0.3, -0.7, 0.05, -0.45, 0.2, 0.6]])


def started(weight, bits, **options):
    made = codebook(**options).weights(tuple(weight.shape), bits)
    made.start(weight)
    return made


def sparse(seed=0):
    draw = torch.Generator().manual_seed(seed)
    weight = torch.randn(16, 8, 3, 3, generator=draw)
    return weight * (torch.rand(weight.shape, generator=draw) < 0.3)


def test_known_answer():
    made = started(VECTOR, 2)
    torch.testing.assert_close(made.table.detach(), torch.tensor([-0.575, -0.025, 1.1 / 3, 0.9]))
    assert made.codes.tolist() == [3, 1, 2, 0, 1, 0, 2, 2]


@settings(max_examples=30, deadline=None)
@given(arrays(np.float32, st.integers(1, 60), elements=st.floats(-2, 2, width=16)), st.integers(1, 9))
def test_a_clustering_is_one_of_lloyd(values, levels):
    centroids, codes = cluster(values.astype(np.float64), levels)
    gaps = np.abs(values[:, None] - centroids)
    assert np.all(np.diff(centroids) >= 0)
    np.testing.assert_allclose(gaps[np.arange(len(values)), codes], gaps.min(1), atol=1e-12)  # each has its nearest
    for level in np.unique(codes):
        assert centroids[level] == pytest.approx(values[codes == level].astype(np.float64).mean(), abs=1e-12)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_zeros_have_a_level_of_their_own_and_stay(bits):
    weight = sparse()
    made = started(weight, bits)
    optimizer = torch.optim.SGD(made.parameters(), lr=0.1, momentum=0.9)
    for _ in range(3):
        optimizer.zero_grad()
        (made(weight) - 1).square().sum().backward()
        optimizer.step()
    assert torch.equal(made(weight) == 0, weight == 0)


@pytest.mark.parametrize("gradient", ["mean", "sum"])
def test_gradient_of_a_level_is_that_of_its_weights(gradient):
    weight = sparse(1).requires_grad_()
    made = started(weight, 3, gradient=gradient)
    dense = torch.randn(weight.shape, generator=torch.Generator().manual_seed(2))
    (made(weight) * dense).sum().backward()
    want = torch.zeros(8).index_add(0, made.codes.long(), dense.flatten())
    if gradient == "mean":
        want /= torch.bincount(made.codes.long(), minlength=8).clamp_min(1)
    want[0] = 0  # the zeros'
    torch.testing.assert_close(made.table.grad, want)
    assert weight.grad is None


@pytest.mark.parametrize(
    "weight",
    [
        torch.full((4, 3), 0.3),
        torch.zeros(4, 3),
        torch.tensor([[0.1, -0.7, 0.1, 2.5]]),
        torch.tensor([[0.0, -0.7, 0.1, 0.1]]),
    ],
    ids=["equal", "zeros", "three", "two and zero"],
)
@pytest.mark.parametrize("bits", [2, 8])
def test_no_more_numbers_than_levels_are_kept_as_they_are(weight, bits):
    made = started(weight, bits)
    assert torch.equal(made(weight), weight)
    assert len(made.table) == min(2**bits, weight.numel())


@pytest.mark.parametrize("bits", codebook.widths)
def test_what_is_stored_is_what_is_computed_with(bits):
    weight = sparse(3)
    made = started(weight, bits)
    levels = made.levels(weight)
    assert torch.equal(levels.values(), made(weight))
    told = codebook().stored(tuple(weight.shape), bits)
    assert told == bits * levels.codes.numel() + 32 * levels.table.numel()


def test_an_option_that_cannot_be():
    with pytest.raises(PlanError, match="mean or sum"):
        codebook(gradient="most")
