"""Chains of the principal components of what layers write: known errors, the mean, and svd where nothing is known."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from penjing.core.errors import PlanError
from penjing.data import load
from penjing.factors.chain import merge
from penjing.graph.trace import trace
from penjing.rewrites.svd import svd
from penjing.rewrites.svd_responses import svd_responses
from penjing.steps.factorize import factorize
from penjing.steps.state import Run, State
from tiny import pictures, tiny


class Net(nn.Module):
    """A layer with a bias, one whose mean a norm takes away, and one that has neither."""

    def __init__(self) -> None:
        super().__init__()
        self.biased = nn.Conv2d(6, 12, 3, padding=1)
        self.normed, self.norm = nn.Conv2d(12, 10, 3, bias=False), nn.BatchNorm2d(10)
        self.bare = nn.Linear(10, 8, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.normed(self.biased(x).relu()))
        out: Tensor = self.bare(x.relu().mean((2, 3)))
        return out


def net() -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = Net()
        with torch.no_grad():
            made.norm.running_mean.normal_()
            made.norm.running_var.uniform_(0.5, 2)
        return made.double().eval()


def correlated(seed: int) -> list[Tensor]:
    """Return pictures of 6 x 8 x 8, so small that every position takes part."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(6, 6, generator=generator).double() * torch.logspace(0, -2, 6).double()
    return [torch.einsum("nchw,dc->ndhw", torch.randn(40, 6, 8, 8, generator=generator).double(), mix) + 1]


def chained(change: svd_responses | svd, model: nn.Module, layer: str, rank: int) -> Any:
    small = copy.deepcopy(model)
    graph = trace(small, (torch.randn(2, 6, 8, 8).double(),), proof=False)
    change.apply(small, graph, {f"{layer}/rank": np.arange(rank)})
    return small


@torch.no_grad()
def wrote(model: nn.Module, name: str, x: Tensor) -> Tensor:
    found: list[Tensor] = []
    with model.get_submodule(name).register_forward_hook(lambda *args: found.append(args[2])):
        model(x)
    return found[0]


@torch.no_grad()
@pytest.mark.parametrize(("layer", "behind"), [("biased", "biased"), ("normed", "norm"), ("bare", "bare")])
def test_what_is_lost_is_the_variance_of_the_components_left_out(layer: str, behind: str) -> None:
    model, seen = net(), correlated(1)
    change = svd_responses().on(seen)
    small = chained(change, model, layer, 2)
    whole, left, by_weights = (wrote(one, behind, seen[0]) for one in (model, small, chained(svd(), model, layer, 2)))
    rows = (whole - left).movedim(1, -1).flatten(0, -2)
    if layer == "normed":  # in the units of the layer
        rows = rows * (model.norm.running_var + model.norm.eps).sqrt() / model.norm.weight
    if layer != "bare":
        torch.testing.assert_close(rows.mean(0), torch.zeros_like(rows[0]), atol=1e-6, rtol=0)
    (axis,) = change.spectra(model, layer, layer)
    torch.testing.assert_close(rows.square().sum(1).mean(), axis.energies[2:].sum(), rtol=1e-5, atol=1e-9)
    assert (small.get_submodule(layer).last.bias is None) == (layer != "biased")
    assert (whole - left).norm() < (whole - by_weights).norm()


class PreActivation(nn.Module):
    """A layer that a batch norm reads, and the sum behind the branch as well."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Conv2d(6, 10, 3, padding=1, bias=False), nn.BatchNorm2d(10)
        self.branch = nn.Conv2d(10, 10, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x)
        out: Tensor = x + self.branch(self.norm(x).relu())
        return out


@torch.no_grad()
def test_a_norm_that_is_not_the_only_reader_takes_no_mean() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = PreActivation().double().eval()
    small = chained(svd_responses().on(correlated(1)), model, "layer", 4)
    assert torch.equal(small.norm.running_mean, model.norm.running_mean)


def test_without_pictures_it_is_svd() -> None:
    model = net()
    for layer in ("biased", "normed", "bare"):
        ours, theirs = (chained(change, model, layer, 3) for change in (svd_responses(), svd()))
        pair = [merge(one.get_submodule(layer)) for one in (ours, theirs)]
        torch.testing.assert_close(pair[0].weight, pair[1].weight)


def test_the_step_gives_it_pictures_and_asks_for_them(tmp_path: Any) -> None:
    model, x = tiny().eval(), torch.randn(2, 3, 8, 8)
    step = factorize(rewrite="svd_responses", ranks={"energy": 0.8}, images=64)
    with pytest.raises(PlanError, match=r"svd_responses.* needs data"):
        step(State(model, model, None, ((x,), {})), Run(tmp_path))
    state = State(model, model, load(pictures(tmp_path), seed=0), ((x,), {}))
    found = step(state, Run(tmp_path)).model
    assert found.conv1.first.out_channels < 32
    full = factorize(rewrite="svd_responses", ranks="full", images=64)(state, Run(tmp_path)).model
    torch.testing.assert_close(full(x), model(x), rtol=1e-3, atol=1e-4)
    small = factorize(rewrite="svd_responses", images=64)(state, Run(tmp_path, {"macs": "0.5x"})).model
    assert sum(one.macs for one in trace(small, (x,), proof=False).layers) <= 0.5 * 617520


def test_grouped_layers_say_why_they_stay(tmp_path: Any) -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
    state = State(model, model, load(pictures(tmp_path), seed=0), ((torch.randn(2, 4, 8, 8),), {}))
    with pytest.raises(PlanError, match="0 is grouped, and components of all its channels would join the groups"):
        factorize(rewrite="svd_responses", ranks=2, include=("0",))(state, Run(tmp_path))
