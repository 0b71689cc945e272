from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penjing.core.errors import PlanError

from .nets import Mixed, evidence, score, shaken


def test_bn_gamma_is_the_absolute_scale_averaged_over_norms() -> None:
    model = shaken(Mixed())
    model.norm.weight.data.neg_()
    given = evidence(model)
    scales = {n: getattr(model, n).weight.detach().abs().double() for n in ("norm", "norm1", "norm2", "norm3")}
    # The stream passes two norms, and so do the channels on both sides of the depthwise convolution.
    assert torch.allclose(score("bn_gamma", given, "stem"), (scales["norm"] + scales["norm3"]) / 2)
    assert torch.allclose(score("bn_gamma", given, "expand"), (scales["norm1"] + scales["norm2"]) / 2)


def test_a_norm_after_a_flatten_counts_with_the_mean_over_its_positions() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm1d(16), nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.norm(F.adaptive_avg_pool2d(F.relu(self.conv(x)), 2).flatten(1)))

    model = Net().eval()
    model.norm.weight.data = torch.arange(16.0) - 4
    assert score("bn_gamma", evidence(model), "conv").tolist() == [2.5, 1.5, 5.5, 9.5]


def test_a_site_without_batch_norm_is_named() -> None:
    given = evidence(shaken(Mixed()))
    with pytest.raises(PlanError, match=r"inner has none for its 5 channels; use l1, fpgm or taylor"):
        score("bn_gamma", given, "inner")
    with pytest.raises(PlanError, match=r"inner\.weight is a site of weights; use l1"):
        score("bn_gamma", given, "inner.weight")
