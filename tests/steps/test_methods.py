"""Methods stand for the steps that they return."""

from __future__ import annotations

from typing import Any

import pytest

from penjing.core.errors import RecipeError
from penjing.core.registry import build, entries
from penjing.methods.han import han
from penjing.recipe import usual_steps
from penjing.steps.order import ordered

METHODS = sorted(entries("method"))


def told(steps: list[Any]) -> list[str]:
    return [type(step).__name__ for step in steps]


@pytest.mark.parametrize("name", METHODS)
def test_each_method_is_steps_that_can_be_built(name: str) -> None:
    assert ordered([name, "export", "check"])
    assert name not in entries("step"), "a recipe could mean either"


@pytest.mark.parametrize("name", METHODS)
def test_each_method_ends_before_the_export(name: str) -> None:
    assert not {"export", "check"} & set(told(ordered([name])))


def test_a_method_takes_the_place_of_its_steps() -> None:
    steps = ordered(["recalibrate", {"han": {"rounds": 2, "epochs": 1}}, "export"])
    assert told(steps) == ["recalibrate", "prune", "train", "prune", "train", "remove_dead", "export"]
    assert told(ordered([han(rounds=1)])) == ["prune", "train", "remove_dead"]


def test_a_wrong_name_is_answered_with_the_closest_of_steps_and_methods() -> None:
    with pytest.raises(RecipeError, match=r"There is no step 'hann'\. Did you mean 'han'"):
        ordered(["hann"])
    with pytest.raises(RecipeError, match=r"method 'han' has no option 'epoch'\. Did you mean 'epochs'"):
        ordered([{"han": {"epoch": 1}}])


def test_a_method_object_is_checked_like_a_recipe() -> None:
    assert build("method", {"han": {"sparsity": 0.5}}) == han(sparsity=0.5)


def test_a_method_leaves_no_room_for_another_choice() -> None:
    assert told(ordered(usual_steps(method={"han": {"rounds": 1}}))) == [
        "prune", "train", "remove_dead", "export", "check",
    ]  # fmt: skip
    assert told(ordered(usual_steps(epochs=2, method={"rbp": {"epochs": 1}}))) == ["rbp", "train", "export", "check"]
    assert told(ordered(usual_steps(epochs=0, method="obc"))) == ["obc", "export", "check"]
    with pytest.raises(RecipeError, match=r"A method says itself what allocator is"):
        usual_steps(allocator="random", method="rbp")
    with pytest.raises(RecipeError, match=r"leave epochs out, or set it where the method has such an option"):
        usual_steps(epochs=3, method="han")
    with pytest.raises(RecipeError, match=r"There is no method 'hann'\. Did you mean 'han'"):
        usual_steps(method="hann")
