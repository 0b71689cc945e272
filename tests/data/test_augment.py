import numpy as np
import pytest
import torch

from penjing.data.augment import channel_statistics, normalise, shift_and_flip


def test_normalise_is_the_formula(pictures):
    x = pictures(3)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    y = normalise(x, mean, std)
    want = (x.astype(np.float64) / 255 - mean) / std
    assert y.dtype == torch.float32
    assert y.is_contiguous()
    np.testing.assert_allclose(y.numpy(), want.transpose(0, 3, 1, 2), rtol=1e-5, atol=1e-6)


def test_normalise_leaves_the_pictures_alone(pictures):
    x = pictures(2)
    before = x.copy()
    normalise(x, (0.5,) * 3, (0.5,) * 3)
    assert np.array_equal(x, before)


@pytest.mark.parametrize("padding", [0, 1, 4])
def test_shift_and_flip_pixel_by_pixel(pictures, padding):
    rng = np.random.default_rng(0)
    x = pictures(20, side=5)
    corners = rng.integers(0, 2 * padding + 1, (20, 2))
    mirrored = rng.random(20) < 0.5
    y = shift_and_flip(x, padding, corners, mirrored)
    for i in range(20):
        for row in range(5):
            for column in range(5):
                source_row = row + corners[i, 0] - padding
                source_column = (4 - column if mirrored[i] else column) + corners[i, 1] - padding
                inside = 0 <= source_row < 5 and 0 <= source_column < 5
                want = x[i, source_row, source_column] if inside else np.zeros(3)
                assert np.array_equal(y[i, row, column], want)


def test_statistics_are_those_of_the_float_copy(pictures):
    x = pictures(50)
    mean, std = channel_statistics(x)
    np.testing.assert_allclose(mean, (x / 255).mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, (x / 255).std((0, 1, 2)), rtol=1e-12)


def test_a_constant_channel_does_not_divide_by_zero(pictures):
    x = pictures(5)
    x[..., 1] = 200
    assert channel_statistics(x)[1][1] == 1.0
