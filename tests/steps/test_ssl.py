"""Structured sparsity learning: budgets, what is empty goes without a difference, sparse kernels stay sparse."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from penjing.core.errors import Infeasible, PlanError
from penjing.data import load
from penjing.data.data import Data
from penjing.graph.trace import trace
from penjing.steps.ssl import ssl
from penjing.steps.state import Run, State
from penjing.steps.train import train
from penjing.training.loop import fit
from penjing.training.options import Options
from penjing.zoo.resnet import CifarResNet
from tiny import pictures, skilled


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return load(pictures(tmp_path_factory.mktemp("data")), seed=0)


@pytest.fixture(scope="module")
def deep(data: Data) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CifarResNet(2, 3, "A")
    fit(model, data.train, None, Options(epochs=2, lr=0.05, batch=16), seed=0)
    return model.eval()


def pruned(model: nn.Module, data: Data, budget: str | None = None, **options: Any) -> tuple[State, Run]:
    step = ssl(**{"epochs": 2.0, "batch": 16, "images": 64, **options})
    state = State(copy.deepcopy(model), copy.deepcopy(model), data, ((data.example(2),), {}))
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), dict([budget.split("=")]) if budget else {})
        return step(state, run), run


def macs(model: nn.Module, data: Data) -> float:
    return float(sum(layer.macs for layer in trace(model, (data.example(2),)).layers))


@pytest.mark.parametrize(
    "groups", [("filters", "channels"), ("channels",), ("depth",), ("filters", "channels", "depth", "shapes")], ids=str
)
def test_the_budget_is_kept_and_the_cut_proved(deep: nn.Module, data: Data, groups: tuple[str, ...]) -> None:
    state, run = pruned(deep, data, "macs=0.7x", groups=groups)
    assert macs(state.model, data) <= 0.7 * macs(deep, data)
    assert [certificate["ok"] for certificate in run.noted("certificates")] == [True]
    assert set(run.noted("ssl")[0]) == set(groups)


def test_filters_that_became_zero_are_gone_and_no_more(data: Data) -> None:
    model: Any = skilled()
    with torch.no_grad():
        for part in (model.conv1.weight, model.bn1.weight, model.bn1.bias):
            part[4:16] *= 1e-6
    state, run = pruned(model, data, groups=("filters",), include=("conv1",), penalty=0.05, lr=1e-4, terms=())
    (plan,) = state.plans
    assert plan.of_rewrite("channels")["conv1"].tolist() == [0, 1, 2, 3, *range(16, 32)]
    assert run.noted("ssl") == [{"filters": (12, 32)}]


def test_blocks_that_became_zero_leave_their_shortcut(deep: nn.Module, data: Data) -> None:
    state, _ = pruned(deep, data, groups=("depth",), penalty=1e4, include=("layer1.1",))
    model: Any = state.model
    assert type(model.layer1[1]) is nn.Identity and type(model.layer1[0]) is not nn.Identity


def test_columns_of_kernels_become_zero_and_stay_so(deep: nn.Module, data: Data) -> None:
    state, run = pruned(deep, data, groups=("shapes",), penalty=10.0)
    (plan,) = state.plans
    assert plan.rewrites() == ["weights"] and run.noted("ssl")[0]["shapes"][0] > 0
    zeros = {name: p.detach() == 0 for name, p in state.model.named_parameters() if p.dim() == 4}
    assert sum(int(zero.sum()) for zero in zeros.values()) == sum(e.size - len(e.kept) for e in plan)
    with tempfile.TemporaryDirectory() as folder:
        after = train(epochs=1, batch=16, terms=())(state, Run(Path(folder))).model
    for name, p in after.named_parameters():
        assert name not in zeros or torch.equal(p.detach() == 0, zeros[name])


def test_the_same_seed_gives_the_same_network(deep: nn.Module, data: Data) -> None:
    first, second = (pruned(deep, data, "macs=0.6x", epochs=1.0)[0].model for _ in range(2))
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_no_penalty_empties_a_site(data: Data) -> None:
    state, _ = pruned(skilled(), data, penalty=1e3)
    (plan,) = state.plans
    assert all(len(entry.kept) == 4 for entry in plan)
    assert all(bool(p.detach().any()) for p in state.model.parameters() if p.dim() > 1)


def test_what_cannot_be_reached_is_refused_before_training(deep: nn.Module, data: Data) -> None:
    with pytest.raises(Infeasible, match=r"macs 0\.001x is .* lowest reachable"):
        pruned(deep, data, "macs=0.001x", epochs=1e6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, r"ssl: epochs must be a number above 0; got 0"),
        ({"penalty": -1.0}, r"ssl: penalty must be a number above 0"),
        ({"groups": ("rows",)}, r"ssl: groups are some of shapes, channels, filters, depth; got \['rows'\]"),
        ({"batch": 0}, r"ssl: batch must be 1 or more"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        ssl(**options)


def test_groups_that_remove_nothing_take_no_budget(deep: nn.Module, data: Data) -> None:
    with pytest.raises(PlanError, match=r"ssl: a budget needs filters, channels or depth"):
        pruned(deep, data, "macs=0.5x", groups=("shapes",), exclude=("*/rows", "*/columns"))


def test_kernels_that_are_empty_outside_are_cropped_and_what_is_empty_inside_is_stored(data: Data) -> None:
    model: Any = skilled()
    with torch.no_grad():
        model.conv1.weight[:, :, (0, 2)] *= 1e-6
        model.conv2.weight[:, 3, 1, 1] *= 1e-6
    state, run = pruned(model, data, groups=("shapes",), penalty=1.0, lr=1e-4, terms=())
    small: Any = state.model
    cropped, stored = state.plans
    assert [(entry.rewrite, entry.site) for entry in cropped] == [("kernels", "conv1.weight/rows")]
    assert (small.conv1.kernel_size, small.conv1.padding) == ((1, 3), (0, 1))
    assert small.conv2.kernel_size == (3, 3) and stored.rewrites() == ["weights"]
    assert {entry.site: entry.size - len(entry.kept) for entry in stored} == {"conv2.weight": 16}
    assert [certificate["ok"] for certificate in run.noted("certificates")] == [True]
    assert {"site": "conv1.weight/rows", "kind": "kernels", "before": 1, "after": 0} in run.noted("sites")


def test_a_budget_is_met_by_crops_alone(deep: nn.Module, data: Data) -> None:
    state, _ = pruned(deep, data, "macs=0.6x", groups=("shapes",))
    assert macs(state.model, data) <= 0.6 * macs(deep, data)
    assert state.plans[0].rewrites() == ["kernels"]
    shapes = {module.kernel_size for module in state.model.modules() if isinstance(module, nn.Conv2d)}
    assert len(shapes) > 1 and shapes <= {(3, 3), (1, 3), (3, 1), (1, 1)}


def test_epochs_are_filed_as_those_of_a_training(data: Data) -> None:
    _, run = pruned(skilled(), data, epochs=3.0)
    assert [row["epoch"] for row in run.noted("training")] == [1, 2, 3]
    assert all(row["val_accuracy"] is not None for row in run.noted("training"))
    assert [how["terms"] for how in run.noted("trained")] == [["GroupLasso", "soft_targets"]]
