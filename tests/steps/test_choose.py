"""Steps are counted in channels, whatever a unit spans."""

import numpy as np
import pytest
import torch
from torch import nn

import penjing
from penjing.core.sites import Site
from penjing.graph.trace import trace
from penjing.steps import price
from penjing.steps.choose import at_step
from penjing.steps.prune import prune
from penjing.steps.state import Run, State


@pytest.mark.parametrize(
    ("width", "step", "units"), [(1, 4, 4), (2, 4, 2), (4, 4, 1), (8, 4, 1), (3, 4, 4), (6, 16, 8)]
)
def test_few_wide_units_make_a_step(width, step, units):
    (site,) = at_step([Site("a", "channels", 64, (), np.arange(64), width=width)], step)
    assert site.step == units and units * width % step == 0


def test_a_small_site_is_one_step():
    (site,) = at_step([Site("a", "channels", 3, (), np.arange(3))], 4)
    assert site.step == 3


def test_bits_beside_channels_keep_to_no_multiple():
    (site,) = at_step([Site("a/bits", "bits", 32, (), np.arange(0), least=2, most=8)], 4)
    assert [site.allowed(n) for n in (1, 3, 7, 31, 32)] == [2, 3, 7, 8, 32]


class Grouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 32, 3, padding=1), nn.GroupNorm(8, 32)
        self.second, self.norm2 = nn.Conv2d(32, 32, 3, padding=1), nn.GroupNorm(8, 32)
        self.head = nn.Linear(32, 4)

    def forward(self, x):
        x = self.norm2(self.second(self.norm(self.first(x)).relu())).relu()
        return self.head(x.mean((2, 3)))


def test_a_network_of_group_norms_is_cut_to_its_budget():
    """Eight units of four channels: a step of four units would leave only 16 or 32 channels."""
    result = penjing.run(Grouped(), None, [prune(criterion="l1")], "macs=0.2x", example=torch.randn(2, 3, 8, 8))
    original, small = result.results["rows"]
    assert 0.1 < small["macs"] / original["macs"] <= 0.2


def test_two_cuts_of_one_run_know_the_same_times(tmp_path, monkeypatch):
    """Or the second, gone on with, would choose by other times than those that it searched by."""
    timed = []

    def time_shape(shape, *conditions):
        timed.append(shape)
        return 0.01 * len(timed)

    monkeypatch.setattr(price, "time_shape", time_shape)
    model = Grouped().eval()
    state = State(model, model, None, ((torch.randn(2, 3, 8, 8),), {}))
    graph = trace(model, *state.example)
    run = Run(tmp_path)
    one, two = (price.Pricer(graph, state, run, "latency=0.5x").table for _ in range(2))
    assert one.times == two.times and len(timed) == len(set(timed))


@pytest.mark.parametrize(("measured", "taken"), [([0.995, 0.97], 0.97), ([0.97, 0.96], 0.97), ([0.995, 1.2], 0.995)])
def test_a_plan_just_below_its_latency_is_taken_only_without_a_safer_one(tmp_path, monkeypatch, measured, taken):
    monkeypatch.setattr(price, "time_shape", lambda shape, *_: shape.macs * 1e-6)
    model = Grouped().eval()
    state = State(model, model, None, ((torch.randn(2, 3, 8, 8),), {}))
    shares = iter([*measured, *[1.2] * 9])
    monkeypatch.setattr(
        price.Pricer, "measure", lambda pricer, _: {"latency": next(shares) * pricer.bounds[0].limit}
    )  # fmt: skip
    run = Run(tmp_path, {"latency": "0.9x"})
    cut, pricer = prune(criterion="l1").decide(state, run)
    assert cut.measured["latency"] == pytest.approx(taken * pricer.bounds[0].limit)
