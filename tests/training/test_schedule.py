import itertools
import math

import pytest

from penjing.core.errors import TrainError
from penjing.training.schedule import learning_rate


def test_rises_linearly_and_reaches_the_peak_once():
    rates = [learning_rate(step, 100, 0.4, 0.1) for step in range(100)]
    assert rates[:11] == pytest.approx([0.4 * (step + 1) / 11 for step in range(10)] + [0.4])
    assert rates.count(max(rates)) == 1
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))


def test_the_rest_is_half_a_cosine():
    assert learning_rate(10 + 30, 100, 0.4, 0.1) == pytest.approx(0.2 * (1 + math.cos(math.pi / 3)))
    assert learning_rate(55, 100, 0.4, 0.1, final=0.1) == pytest.approx(0.25)


def test_ends():
    assert learning_rate(0, 1, 0.4, 0.05) == 0.4
    assert learning_rate(100, 100, 0.4, 0.1, final=0.01) == pytest.approx(0.01)
    assert learning_rate(1000, 100, 0.4, 0.1, final=0.01) == pytest.approx(0.01)
    assert 0 < learning_rate(99, 100, 0.4, 0.0) < 0.001


@pytest.mark.parametrize(("total", "warmup"), [(0, 0.1), (10, 1.0), (10, -0.1), (10, math.nan)])
def test_refuses(total, warmup):
    with pytest.raises(TrainError):
        learning_rate(0, total, 0.1, warmup)
