import math

import numpy as np
import pytest

from penjing.costs.probe import Shape
from penjing.costs.staircase import learn_step
from penjing.costs.table import LayerTable, Timer


def machine(block: int, crooked: float = 1.0, noise: float = 0.0) -> Timer:
    """Return a timer that computes in blocks of channels, and takes longer where a count is no multiple of 4."""
    random = np.random.default_rng(0)

    def timer(shape: Shape, *conditions: object) -> float:
        assert shape.in_channels == shape.out_channels
        padded = math.ceil(shape.in_channels / block) * block
        slow = crooked if shape.in_channels % 4 else 1.0
        return padded**2 * slow * float(np.exp(random.normal(0.0, noise)))

    return timer


@pytest.mark.parametrize("block", [1, 2, 4, 8, 16, 32])
@pytest.mark.parametrize(("crooked", "noise"), [(1.0, 0.0), (1.0, 0.005)])
def test_the_block_of_the_machine_is_found(block: int, crooked: float, noise: float) -> None:
    assert learn_step(LayerTable(timer=machine(block, crooked, noise))) == block


@pytest.mark.parametrize("block", [8, 16, 32])
def test_a_slow_path_and_heavy_noise_do_not_hide_it(block: int) -> None:
    assert learn_step(LayerTable(timer=machine(block, crooked=1.35, noise=0.03))) == block


def test_a_slow_path_alone_asks_for_multiples_of_four() -> None:
    assert learn_step(LayerTable(timer=machine(1, crooked=1.3))) == 4


def test_the_shapes_go_through_the_table() -> None:
    table = LayerTable(timer=machine(16))
    learn_step(table, size=(7, 5), kernel=1)
    assert 20 <= len(table.times) <= 30
    shape = next(iter(table.times))
    assert (shape.kernel, shape.in_size, shape.out_size) == ((1, 1), (7, 5), (7, 5))


def test_only_ratios_count() -> None:
    timer = machine(8)
    assert learn_step(LayerTable(timer=lambda *asked: 1e-6 * timer(*asked))) == 8


@pytest.mark.parametrize("ms", [0.0, 1.0])
def test_a_machine_that_does_not_care_gets_the_largest_step(ms: float) -> None:
    assert learn_step(LayerTable(timer=lambda *_: ms)) == 32
