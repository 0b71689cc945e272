"""Recipes: what is wrong is told by key, before anything starts."""

import pytest

from penjing.core.errors import PenjingError, RecipeError
from penjing.costs.units import parse_budget
from penjing.recipe import changed, changes, read, usual_steps

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
    recipe = read(written(tmp_path, GOOD), changes(["budget.error=+3"]))
    for budget, points in ((recipe.budget, 3), (recipe.steps[0].budget, 2)):
        found = parse_budget(budget)["error"]
        assert (found.kind, found.value) == ("difference", points)
    assert recipe.val == 144 and isinstance(recipe.val, int)


def test_keys_are_set_by_their_path(tmp_path):
    asked = changes(["steps.1.train.epochs=7", "steps.2.export.images=9", "seed=4", "target.batch=3"])
    recipe = read(written(tmp_path, GOOD), asked)
    assert (recipe.steps[1].epochs, recipe.steps[2].images, recipe.seed) == (7, 9, 4)
    assert (recipe.target.threads, recipe.target.batch) == (None, 3)


def test_a_step_is_called_by_its_name_where_there_is_one_of_it(tmp_path):
    recipe = read(written(tmp_path, GOOD), changes(["train.epochs=7", "train.terms=[hints]", "export.images=9"]))
    assert (recipe.steps[1].epochs, recipe.steps[1].terms, recipe.steps[2].images) == (7, ("hints",), 9)
    twice = {"steps": ["prune", "train", {"train": {"epochs": 3}}]}
    with pytest.raises(RecipeError, match=r"there are 2 steps 'train'; write steps.1.train.lr or steps.2.train.lr"):
        changed(twice, {"train.lr": 0.1})


def test_a_budget_is_set_as_it_is_written(tmp_path):
    asked = changes(["budget={error: +3}", "prune.budget.error=+4"])
    recipe = read(written(tmp_path, GOOD), asked)
    assert [parse_budget(b)["error"].kind for b in (recipe.budget, recipe.steps[0].budget)] == ["difference"] * 2
    assert read(written(tmp_path, GOOD), changes(["budget=macs=0.3x"])).budget == "macs=0.3x"


def test_paths_in_the_file_lie_beside_it_and_paths_that_are_set_do_not(tmp_path):
    (tmp_path / "pictures").mkdir()
    path = written(tmp_path, GOOD.replace("data: digits", "data: pictures"))
    assert read(path).data == str(tmp_path / "pictures")
    assert read(path, {"data": "pictures"}).data == "pictures"


def test_the_usual_steps_are_a_recipe_without_training_too():
    names = [step if isinstance(step, str) else next(iter(step)) for step in usual_steps(epochs=0)]
    assert names == ["prune", "reconstruct", "recalibrate", "export", "check"]
    (training,) = [step for step in usual_steps(3, 0.1) if "train" in step]
    assert training == {"train": {"epochs": 3, "lr": 0.1}}


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
        ("val: 144", "target: {thread: 1}", "target has no option 'thread'. Did you mean 'threads'"),
        ("val: 144", "target: 3", "target must hold key: value pairs; got 3"),
        ("val: 144", "mean: half", "mean = 'half' is not right"),
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
        ("trian.epochs", "3", "no key and no step 'trian'. Did you mean 'train'"),
        ("recalibrate.images", "3", "no key and no step 'recalibrate'"),
        ("train.epochs", "many", "epochs = 'many' is not right"),
        ("steps.1.train.epoch", "3", "Did you mean 'epochs'"),
    ],
)
def test_a_path_that_leads_nowhere_is_named(tmp_path, key, value, message):
    with pytest.raises(PenjingError) as caught:
        read(written(tmp_path, GOOD), changes([f"{key}={value}"]))
    assert message in str(caught.value)
