"""What the step refuses, and what it leaves to its criterion and allocator."""

import pytest
import torch

import penjing
from penjing.core.errors import BudgetError, Infeasible, PlanError
from penjing.steps.prune import prune
from tiny import pictures, tiny


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
