"""Cuts of kernels: within a budget, beside channels and blocks, and refitted."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from penjing.core.errors import PlanError
from penjing.core.plan import Plan
from penjing.data import load
from penjing.data.data import Data
from penjing.graph.draft import Draft
from penjing.graph.trace import trace
from penjing.rewrites.channels import channels
from penjing.rewrites.kernels import kernels
from penjing.rewrites.layers import layers
from penjing.rewrites.nested import nested
from penjing.steps.prune import prune
from penjing.steps.reconstruct import reconstruct
from penjing.steps.state import Run, State
from penjing.training.follow import distance
from penjing.zoo.resnet import CifarResNet
from tiny import pictures, skilled


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return load(pictures(tmp_path_factory.mktemp("data")), seed=0)


def begun(model: nn.Module, data: Data) -> State:
    return State(copy.deepcopy(model), model, data, ((data.example(2),), {}))


def macs(model: nn.Module, data: Data) -> int:
    return sum(layer.macs for layer in trace(model, (data.example(2),), proof=False).layers)


def test_a_budget_is_kept_and_a_refit_makes_up_for_the_taps(data: Data, tmp_path: Path) -> None:
    model = skilled()
    run = Run(tmp_path, {"macs": "0.6x"})
    cut = prune(rewrite="kernels", criterion="l2", normalise=False)(begun(model, data), run)
    assert macs(cut.model, data) <= 0.6 * macs(model, data)
    assert cut.plans[0].rewrites() == ["kernels"] and [c["ok"] for c in run.noted("certificates")] == [True]
    refitted = reconstruct()(cut, run)
    assert distance(refitted.model, model, data.val) < 0.5 * distance(cut.model, model, data.val)
    assert macs(refitted.model, data) == macs(cut.model, data)


def test_kernels_lie_within_their_block() -> None:
    graph = trace(CifarResNet(1, 3, "A").eval(), (torch.randn(2, 3, 8, 8),))
    found = [*layers().find(graph), *kernels().find(graph)]
    within = {site.name: site.within for site in nested(graph, found, {"layers": layers(), "kernels": kernels()})}
    assert within["layer1.0.conv1.weight/rows"] == "layer1.0" and within["conv1.weight/rows"] == ""


def test_one_plan_of_widths_and_kernels_is_what_its_draft_foretells(data: Data) -> None:
    model: Any = skilled()
    graph = trace(model, (data.example(2),))
    cut, crop = channels(), kernels()
    kept = {"conv1": list(range(0, 32, 3))}
    plan = Plan(
        (*Plan.of("channels", kept, graph.sites), *Plan.of("kernels", {"conv1.weight/rows": []}, crop.find(graph)))
    )
    small = copy.deepcopy(model)
    crop.apply(small, graph, plan.of_rewrite("kernels"))
    cut.apply(small, graph, plan.of_rewrite("channels"))
    draft = Draft(graph, plan, lambda: small)
    assert draft.parameters == sum(p.numel() for p in small.parameters())
    assert sum(layer.macs for layer in draft.layers) == macs(small, data)
    assert tuple(small.conv1.weight.shape) == (11, 16, 1, 3)


def test_where_no_kernel_may_go_the_reason_is_told(data: Data, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)).eval()
    with pytest.raises(PlanError, match=r"no site of kernels\. A kernel larger than 1x1 may be cropped where"):
        prune(rewrite="kernels", criterion="l2")(begun(model, data), Run(tmp_path, {"macs": "0.5x"}))
