"""Hashed weights: least squares to begin with, gradients as written out, ratios, and what is stored."""

import pytest
import torch

from penjing.core.errors import PlanError
from penjing.quantizers.hashed import hashed

WEIGHT = torch.randn(16, 8, 3, 3, generator=torch.Generator().manual_seed(0))


def started(bits, **options):
    made = hashed(**options).weights(tuple(WEIGHT.shape), bits)
    made.start(WEIGHT)
    return made


def by_hand(made):
    """The matrix [numbers, buckets] that makes a weight of buckets."""
    matrix = torch.zeros(WEIGHT.numel(), len(made.buckets), dtype=torch.float64)
    matrix[torch.arange(WEIGHT.numel()), made.places] = made.signs.double()
    return matrix


@pytest.mark.parametrize("options", [{}, {"ratio": 1.0}, {"seed": 5}], ids=str)
def test_it_begins_at_the_nearest_weight_there_is(options):
    made = started(4, **options)
    best = torch.linalg.lstsq(by_hand(made), WEIGHT.double().flatten(), driver="gelsd").solution
    torch.testing.assert_close(made.buckets.detach(), best.float())


def test_gradient_of_a_bucket_is_the_signed_sum():
    made, weight = started(2), WEIGHT.clone().requires_grad_()
    dense = torch.randn(WEIGHT.shape, generator=torch.Generator().manual_seed(1))
    (made(weight) * dense).sum().backward()
    torch.testing.assert_close(made.buckets.grad, (by_hand(made).T @ dense.double().flatten()).float())
    assert weight.grad is None


@pytest.mark.parametrize(
    ("options", "widths", "bits", "buckets"),
    [({}, range(1, 9), 4, 144), ({"ratio": 1 / 64}, [1], 1, 18), ({"ratio": 1}, [32], 32, 1152)],
    ids=["bits", "ratio", "whole"],
)
def test_ratios(options, widths, bits, buckets):
    method, made = hashed(**options), started(bits, **options)
    assert list(method.widths) == list(widths)
    assert len(made.buckets) == buckets == method.stored(tuple(WEIGHT.shape), bits) / 32


def test_where_each_number_has_a_bucket_to_itself_it_is_kept():
    made = started(32, ratio=1)
    alone = (torch.bincount(made.places, minlength=len(made.buckets)) == 1)[made.places]
    assert 0.3 < float(alone.float().mean()) < 0.45  # 1 / e
    assert torch.equal(made(WEIGHT).flatten()[alone], WEIGHT.flatten()[alone])


def test_what_is_stored_is_what_is_computed_with():
    made = started(3, seed=2)
    assert torch.equal(made.levels(WEIGHT).values(), made(WEIGHT))
    again = hashed(seed=2).weights(tuple(WEIGHT.shape), 3)
    again.load_state_dict(made.state_dict())
    assert list(made.state_dict()) == ["buckets"]
    assert torch.equal(again(WEIGHT), made(WEIGHT))


@pytest.mark.parametrize("options", [{"ratio": 0}, {"ratio": 1.5}, {"seed": -1}], ids=str)
def test_options_that_cannot_be(options):
    with pytest.raises(PlanError, match=next(iter(options))):
        hashed(**options)
