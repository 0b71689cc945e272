"""Recipes: what is wrong is told by key, before anything starts."""

import pytest

from penjing.core.errors import PenjingError
from penjing.costs.units import parse_budget
from penjing.recipe import read

GOOD = """
model: tiny:tiny
data: digits
budget: {macs: 0.5x, error: +0.5}
val: 144
steps:
  - prune: {criterion: l1, budget: {error: +2}}
  - train: {epochs: 3}
  - export
  - check
"""


def written(tmp_path, text):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    return path


def test_a_plus_stays_a_difference_wherever_a_budget_is_written(tmp_path):
    recipe = read(written(tmp_path, GOOD), {"budget.error": "+3"})
    for budget, points in ((recipe.budget, 3), (recipe.steps[0].budget, 2)):
        found = parse_budget(budget)["error"]
        assert (found.kind, found.value) == ("difference", points)
    assert recipe.val == 144 and isinstance(recipe.val, int)


def test_keys_are_set_by_their_path(tmp_path):
    recipe = read(written(tmp_path, GOOD), {"steps.1.train.epochs": "7", "steps.2.export.images": "9", "seed": "4"})
    assert (recipe.steps[1].epochs, recipe.steps[2].images, recipe.seed) == (7, 9, 4)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("val: 144", "val: 144\nval: 0.1", "'val' in line 6 is written twice"),
        ("epochs: 3", "epochs: 3, epochs: 4", "'epochs' in line 8 is written twice"),
        ("val: 144", "seed: yes", "seed must be a whole number"),
        ("val: 144", "seed: -1", "seed must be a whole number, 0 or more"),
        ("val: 144", "val: much", "val = 'much' is not right"),
        ("val: 144", "weights: 3", "weights = 3 is not right"),
        ("val: 144", "target: {threads: 0}", "threads must be a whole number, 1 or more; got 0"),
        ("val: 144", "target: {thread: 1}", "target takes threads and batch"),
        ("val: 144", "mean: 0.5", "mean = 0.5 is not right"),
        ("criterion: l1", "criterion: l3", "no criterion 'l3'"),
        ("criterion: l1", "allocator: gredy", "Did you mean 'greedy'"),
        ("criterion: l1", "step: 0", "step must be a whole number, 1 or more"),
        ("criterion: l1", "rounds: 0", "rounds must be"),
        ("error: +2", "errr: +2", "Did you mean 'error'"),
        ("epochs: 3", "epochs: -1", "epochs must be a whole number, at least 1"),
        ("epochs: 3", "epochs: 1.5", "epochs = 1.5 is not right"),
        ("epochs: 3", "lr: -1", "lr must be a number above 0"),
        ("epochs: 3", "terms: [soft_target]", "Did you mean 'soft_targets'"),
        ("  - export\n", "", "put the step export right before check"),
        ("  - export\n", "  - export\n  - recalibrate\n", "put the step export right before check"),
        ("macs: 0.5x", "flops: 0.5x", "no cost 'flops'"),
        ("model: tiny:tiny", "model: [a]", "model = ['a'] is not right"),
        ("  - check", "  - 3", "no step"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, old, new, message):
    assert old in GOOD
    with pytest.raises(PenjingError) as caught:
        read(written(tmp_path, GOOD.replace(old, new)))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("steps.9.train.epochs", "3", "nothing at steps.9"),
        ("steps.x", "1", "nothing at steps.x"),
        ("a..b", "1", "empty part"),
        ("", "3", "empty part"),
        ("model.name", "1", "nothing at model.name"),
        ("seed", "[", "--set seed, line 1, is not YAML"),
        ("steps.1.train.epoch", "3", "Did you mean 'epochs'"),
    ],
)
def test_a_path_that_leads_nowhere_is_named(tmp_path, key, value, message):
    with pytest.raises(PenjingError) as caught:
        read(written(tmp_path, GOOD), {key: value})
    assert message in str(caught.value)
