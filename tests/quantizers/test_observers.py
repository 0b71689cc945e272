"""Observers: known steps, outliers, and what the searches find against a search by brute force."""

import pytest
import torch

from penjing.quantizers.observers import OBSERVERS, entropy, largest, least_error, percentile, squared_error

NORMAL = torch.randn(1, 5000, generator=torch.Generator().manual_seed(0))


def test_known_steps() -> None:
    weight = torch.tensor([[0.5, -1.27, 0.01], [2.54, 0, -1]])
    step = largest(weight, -127, 127)
    torch.testing.assert_close(step, torch.tensor([0.01, 0.02]))
    assert (weight / step[:, None]).round().tolist() == [[50, -127, 1], [127, 0, -50]]
    torch.testing.assert_close(largest(torch.tensor([[-1.0, 0.1]]), -2, 1), torch.tensor([0.5]))


@pytest.mark.parametrize(("lowest", "highest"), [(-2, 1), (-8, 7), (0, 15), (-127, 127)])
def test_the_least_error_is_that_of_a_fine_search(lowest: int, highest: int) -> None:
    x = NORMAL if lowest else NORMAL.relu()
    tried = torch.linspace(0.02, 1, 400) * largest(x, lowest, highest)
    best = min(float(squared_error(x, step[None], lowest, highest)) for step in tried)
    assert float(squared_error(x, least_error(x, lowest, highest), lowest, highest)) <= 1.02 * best


def test_an_outlier_moves_a_percentile_and_the_entropy_little() -> None:
    x = NORMAL.clone()
    x[0, 7] = 20
    assert float(largest(x, -7, 7)) > 2.5
    assert float(percentile(x, -7, 7, 0.999)) < 0.6
    assert float(entropy(x, -7, 7)) < 1.2


@pytest.mark.parametrize("name", OBSERVERS)
def test_steps_are_above_zero_and_one_a_row(name: str) -> None:
    x = torch.stack([torch.zeros(50), torch.full((50,), 3.0), -torch.rand(50), torch.linspace(-1, 1, 50)])
    for lowest, highest in ((-128, 127), (0, 255), (0, 1), (-2, 1)):
        steps = OBSERVERS[name](x, lowest, highest)  # type: ignore[index]
        assert steps.shape == (4,)
        assert bool(steps.isfinite().all())
        assert bool((steps > 0).all())


def test_a_search_among_many_looks_at_some_and_repeats_itself() -> None:
    many = NORMAL.expand(20, -1).reshape(1, -1)
    assert torch.equal(least_error(many, -8, 7), least_error(many, -8, 7))
    torch.testing.assert_close(least_error(many, -8, 7), least_error(NORMAL, -8, 7), rtol=0.03, atol=0)
