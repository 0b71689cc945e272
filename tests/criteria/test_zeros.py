"""The zeros after ReLUs: those that are there, and, where a layer reads what a ReLU returned, those of apoz."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penjing.core.errors import PlanError
from penjing.core.registry import build
from penjing.criteria.zeros import Zeros, average, zeros_after_relu
from penjing.graph.evidence import Evidence
from penjing.graph.trace import trace
from tiny import tiny

X = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_a_relu_is_named_after_the_layer_before_it_and_its_zeros_are_those_apoz_sees() -> None:
    model = tiny().train()
    graph = trace(model, (X,))
    found = zeros_after_relu(model, graph, X.split(4))
    assert [zeros.layer for zeros in found] == ["stem", "conv1", "conv2"] and model.training
    evidence = Evidence(model.eval(), graph, [(X, None)])
    fires = build("criterion", "apoz")(graph.site("conv1"), evidence)
    assert found[1].share == pytest.approx(1 - float(fires.mean()), abs=1e-9)
    assert [zeros.values for zeros in found] == [16 * 64, 32 * 64, 16 * 64]


class Kinds(nn.Module):
    """Every way of calling a ReLU, and clamps that are none."""

    def __init__(self, smooth: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.ways = (F.gelu,) if smooth else (
            nn.ReLU(), nn.ReLU(inplace=True), torch.relu, Tensor.relu_, nn.ReLU6(), nn.Hardtanh(), F.leaky_relu
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return torch.cat([way(x - 0.5) for way in self.ways])  # type: ignore[operator]


def test_all_ways_of_calling_one_are_seen_and_other_clamps_are_not() -> None:
    model = Kinds().eval()
    found = zeros_after_relu(model, trace(model, (X,), proof=False), [X])
    share = float((F.relu(model.conv(X) - 0.5) == 0).float().mean())
    assert [zeros.layer for zeros in found] == ["conv"] * 5
    assert all(zeros.share == pytest.approx(share) for zeros in found)


def test_the_average_counts_values_and_bad_input_is_told() -> None:
    assert average([Zeros("a", 0.5, 300), Zeros("b", 0.9, 100)]) == pytest.approx(0.6)
    smooth = Kinds(smooth=True).eval()
    graph = trace(smooth, (X,), proof=False)
    with pytest.raises(PlanError, match="Kinds has no ReLU"):
        zeros_after_relu(smooth, graph, [X])
    with pytest.raises(PlanError, match="no picture"):
        zeros_after_relu(smooth, graph, [])
