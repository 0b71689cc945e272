"""What the step refuses, and what it leaves to its criterion and allocator."""

import numpy as np
import pytest
import torch

import penjing
from penjing.core import registry
from penjing.core.errors import BudgetError, Infeasible, PlanError
from penjing.core.sites import Site, Slot
from penjing.data import load
from penjing.steps.original import counted, drafted
from penjing.steps.prune import prune
from penjing.steps.state import Run, State
from penjing.steps.train import train
from tiny import pictures, skilled, tiny


@pytest.mark.parametrize("wrong", [{"step": 0}, {"step": -2}, {"rounds": 0}, {"images": 0}, {"images": True}])
def test_senseless_options_are_refused(wrong):
    with pytest.raises(PlanError, match=f"{next(iter(wrong))} must be a whole number, 1 or more"):
        prune(**wrong)


def test_single_weights_have_an_allocator_that_ends():
    assert prune(rewrite="weights").allocator == "global" and prune().allocator == "greedy"
    with pytest.raises(PlanError, match="does not end over single weights; use global"):
        prune(rewrite="weights", allocator="greedy")


def test_a_threshold_compares_scores_as_the_criterion_gives_them():
    """Divided by their mean, half of the l1 scores of any layer would lie below one."""
    model = tiny()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(100)
    steps = [prune(criterion="l1", allocator={"threshold": {"k": 1.0}})]
    result = penjing.run(model, None, steps, example=torch.randn(2, 3, 8, 8))
    assert all(line["before"] == line["after"] for line in result.results["sites"])


def test_taylor_sees_the_labels(tmp_path, monkeypatch):
    from penjing.graph.evidence import Evidence

    seen, honest = [], Evidence._loss

    def listening(self, outputs, x, y):
        seen.append(y)
        return honest(self, outputs, x, y)

    monkeypatch.setattr(Evidence, "_loss", listening)
    penjing.run(tiny(), pictures(tmp_path), [prune(criterion="taylor")], "macs=0.7x")
    assert seen and all(y is not None for y in seen)


def run_tiny(budget, **options):
    return penjing.run(tiny(), None, [prune(criterion="l1", **options)], budget, example=torch.randn(2, 3, 8, 8))


def test_a_budget_that_the_original_meets_is_refused():
    with pytest.raises(BudgetError, match=r"asks for nothing: the original meets macs=1G with .*, params=1M with"):
        run_tiny("macs=1G,params=1M")
    assert run_tiny("macs=0.5x,params=1M").results["rows"][1]["macs"] > 0


def test_a_rewrite_that_cannot_lower_a_cost_says_so():
    """Zeros are still computed with, so that no pattern of them lowers the MACs of a dense engine."""
    with pytest.raises(Infeasible, match=r"macs 0.5x is .*\(0.5x\), .* Cutting weights does not lower macs here"):
        run_tiny("macs=0.5x", rewrite="weights")


class Slow:
    """A cost of somebody else's, which runs the network."""

    unit, cheap = "mJ", False

    def __call__(self, draft):
        return float(draft.model()(*draft.example[0]).sum())


def test_a_cost_that_builds_the_network_is_no_bound(monkeypatch):
    monkeypatch.setitem(registry._entries["cost"], "slow", Slow)
    with pytest.raises(BudgetError, match=r"slow builds the network.*cheap = True"):
        penjing.run(tiny(), None, [prune(criterion="l1")], "slow=0.5x", example=torch.randn(2, 3, 8, 8))


class Halves:
    """A rewrite of somebody else's: one unit is the first or second half of a filter."""

    def find(self, graph):
        every = np.arange(np.prod(graph.shapes["stem.weight"]))
        half = len(every) // 2
        return [Site("stem.weight", "halves", 2, (Slot("stem.weight", -1, "out", every, every // half),), every[:0])]

    def zeros(self, graph, kept):
        mask = torch.ones(graph.shapes["stem.weight"], dtype=torch.bool)
        for unit in kept["stem.weight"]:
            mask.view(2, -1)[unit] = False
        return {"stem.weight": mask}

    def apply(self, model, graph, kept):
        model.stem.weight.data.masked_fill_(self.zeros(graph, kept)["stem.weight"], 0)


def test_zeros_of_any_rewrite_are_counted_and_held_through_training(monkeypatch, tmp_path):
    monkeypatch.setitem(registry._entries["rewrite"], "halves", Halves)
    model = tiny()
    size = model.stem.weight.numel()
    total = sum(int((p != 0).sum()) for p in model.parameters())
    steps = [prune(criterion="l1", rewrite="halves", allocator="global"), train(epochs=1, lr=0.02, batch=16)]
    result = penjing.run(model, pictures(tmp_path), steps, {"nonzero": total - size // 2})
    assert int((result.model.stem.weight == 0).sum()) == size // 2


@pytest.mark.parametrize(
    ("rewrite", "include", "exclude", "cut"),
    [
        ("weights", "conv:*", (), ["conv1.weight", "conv2.weight", "stem.weight"]),
        ("weights", "linear:*", (), ["linear.weight"]),
        ("weights", "*", ("conv:*",), ["linear.weight"]),
        ("weights", "conv:conv*", ("conv2.weight",), ["conv1.weight"]),
        ("channels", "conv:*", ("stem",), ["conv1"]),
    ],
)
def test_patterns_may_name_a_kind_of_layer(rewrite, include, exclude, cut):
    result = penjing.run(
        tiny(), None, [prune(criterion="l1", rewrite=rewrite, include=include, exclude=exclude,
        allocator={"uniform": {"keep": 0.5}})], example=torch.randn(2, 3, 8, 8),
    )  # fmt: skip
    assert sorted(line["site"] for line in result.results["sites"] if line["after"] < line["before"]) == cut


def test_a_kind_of_layer_that_is_not_there_is_told():
    with pytest.raises(PlanError, match=r"none matches include \['linear:conv\*'\]"):
        run_tiny("nonzero=0.5x", rewrite="weights", include="linear:conv*")


@pytest.mark.parametrize("towards", [0.0, 1.5, -1.0, float("nan")])
def test_a_share_of_the_way_is_one(towards):
    with pytest.raises(PlanError, match=r"prune: towards is a share of the way to the budget, above 0 and at most 1"):
        prune(towards=towards)


@pytest.mark.parametrize(("rewrite", "cost"), [("channels", "macs"), ("weights", "nonzero")])
def test_cuts_get_to_the_budget_in_rounds_and_do_nothing_once_they_are_there(rewrite, cost, tmp_path):
    model = tiny().eval()
    state, run = State(model, model, None, ((torch.randn(2, 3, 8, 8),), {})), Run(tmp_path, {cost: "0.4x"})
    whole, ends = counted(drafted(model, state.example))[cost], []
    for share in (1 / 3, 1 / 2, 1.0, 1 / 2):
        state = prune(rewrite=rewrite, criterion="l1", step=1, towards=share)(state, run)
        ends.append(counted(drafted(state.model, state.example))[cost] / whole)
    assert ends == pytest.approx([0.8, 0.6, 0.4, 0.4], abs=1 / 16)  # a channel of the stem
    assert ends[3] == ends[2] <= 0.4


def test_an_error_bound_is_approached_by_the_macs_that_it_allows(tmp_path):
    data, model, ends = load(pictures(tmp_path), seed=0), skilled(), []
    state = State(model, model, data, ((data.example(2),), {}))
    for towards in (0.25, 1.0):
        cut = prune(criterion="l1", towards=towards, step=1)(state, Run(tmp_path, {"error": "+30"}))
        ends.append(counted(drafted(cut.model, state.example))["macs"])
    assert ends[1] < ends[0] < counted(drafted(model, state.example))["macs"]
