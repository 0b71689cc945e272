from __future__ import annotations

import numpy as np
import torch
from torch import nn

from .nets import Mixed, evidence, images, score, shaken


def filters(*kernels: list[float]) -> nn.Module:
    """A convolution with these kernels, and a reader."""
    first = nn.Conv2d(3, len(kernels), 1, bias=False)
    first.weight.data = torch.tensor(kernels, dtype=torch.float32)[:, :, None, None]
    return nn.Sequential(first, nn.ReLU(), nn.Conv2d(len(kernels), 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def test_l1_of_sums_6_1_3_removes_the_second() -> None:
    given = evidence(filters([1, -2, 3], [0.5, 0.25, -0.25], [-1, -1, -1]))
    assert score("l1", given, "0").tolist() == [6, 1, 3]
    assert score("l1", given, "0").argmin() == 1


def test_l2_is_the_euclidean_norm() -> None:
    given = evidence(filters([3, 4, 0], [1, 2, -2], [0, 0, -7]))
    assert score("l2", given, "0").tolist() == [5, 3, 7]


def test_channels_of_a_stream_are_scored_by_all_filters_that_write_them() -> None:
    model = shaken(Mixed())
    given = evidence(model)
    written = [model.get_submodule(name).weight.detach().numpy() for name in ("stem", "project", "outer")]
    expected = sum(np.abs(w.astype(np.float64)).reshape(8, -1).sum(1) for w in written)
    assert np.allclose(score("l1", given, "stem"), expected)
    squares = sum((w.astype(np.float64) ** 2).reshape(8, -1).sum(1) for w in written)
    assert np.allclose(score("l2", given, "stem"), squares**0.5)


def test_a_single_weight_is_scored_by_its_magnitude() -> None:
    model = shaken(Mixed())
    given = evidence(model)
    for name in ("l1", "l2"):
        assert torch.equal(score(name, given, "inner.weight"), model.inner.weight.detach().abs().flatten().double())


def test_the_filters_of_a_transposed_convolution_lie_along_its_second_axis() -> None:
    up = nn.ConvTranspose2d(3, 5, 2, stride=2)
    given = evidence(nn.Sequential(up, nn.ReLU(), nn.Conv2d(5, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    assert torch.allclose(score("l1", given, "0"), up.weight.detach().double().abs().sum((0, 2, 3)))


def test_random_depends_on_seed_and_site_alone() -> None:
    model = shaken(Mixed())
    given = evidence(model, seed=3)
    first = score("random", given, "stem")
    assert torch.equal(first, score("random", evidence(shaken(Mixed(), seed=9), seed=3), "stem"))
    assert not torch.equal(first, score("random", evidence(model, seed=4), "stem"))
    assert not torch.equal(first[:6], score("random", given, "expand"))
    spread = score("random", given, "stem.weight")
    assert spread.shape == (216,) and abs(float(spread.mean()) - 0.5) < 0.07 and len(set(spread.tolist())) == 216


def test_random_leaves_the_global_generators_alone() -> None:
    given = evidence(shaken(Mixed()))
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    score("random", given, "stem")
    assert torch.equal(torch.rand(3), expected) and images(1).isfinite().all()
