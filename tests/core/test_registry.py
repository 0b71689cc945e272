"""Names, options and their errors."""

from dataclasses import dataclass

import pytest

from penjing.core import registry
from penjing.core.errors import RecipeError


def test_every_kind_loads_and_describes_itself():
    for kind in registry.HOMES:
        described = registry.describe(kind)
        assert described and all(len(entry.summary) > 20 for entry in described), kind
    assert {"uniform", "global", "threshold", "greedy"} <= set(registry.entries("allocator"))
    assert {"params", "macs", "size", "memory", "error", "latency"} <= set(registry.entries("cost"))
    wanted = {"random", "l1", "l2", "apoz", "entropy", "hrank", "taylor", "bn_gamma", "fpgm", "deviation"}
    assert wanted <= set(registry.entries("criterion"))


def test_an_entry_says_its_options_with_types_and_defaults():
    (threshold,) = [entry for entry in registry.describe("allocator") if entry.name == "threshold"]
    assert threshold.options == (registry.Option("k", "float", "3.0"),)
    (train,) = [entry for entry in registry.describe("step") if entry.name == "train"]
    assert "Fine-tune" in train.summary and "linear warm-up" in train.doc, "what it inherits is told as well"
    assert registry.Option("optimizer", "Literal['sgd', 'adamw']", "'sgd'") in train.options


def test_building_from_every_spelling_gives_equal_objects():
    a = registry.build("allocator", {"threshold": {"k": 2.5}})
    assert registry.build("allocator", a) is a
    assert registry.build("allocator", {"threshold": {"k": 2.5}}) == a != registry.build("allocator", "threshold")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("greedyy", "Did you mean 'greedy'"),
        ({"threshold": {"kk": 1}}, "has no option 'kk'. Did you mean 'k'"),
        ({"threshold": {"k": "many"}}, "k = 'many' is not right"),
        ({"threshold": [1]}, "must be key: value pairs"),
        ({"threshold": {}, "greedy": {}}, "one name with its options"),
    ],
)
def test_wrong_specs_name_what_is_wrong(spec, message):
    with pytest.raises(RecipeError, match=message):
        registry.build("allocator", spec)


def test_a_function_takes_no_options():
    with pytest.raises(RecipeError, match="takes no options"):
        registry.build("criterion", {"l1": {"p": 2}})


def test_one_name_cannot_be_taken_twice():
    @registry.register("allocator")
    @dataclass(frozen=True)
    class only_here:
        """Do nothing, for this test."""

    try:
        with pytest.raises(RecipeError, match="registered twice"):
            registry.register("allocator")(type("only_here", (), {}))
    finally:
        registry._entries["allocator"].pop("only_here")


def test_an_unknown_kind_is_refused():
    with pytest.raises(RecipeError, match="Did you mean 'cost'"):
        registry.entries("costs")


def test_one_value_stands_for_a_tuple_of_it():
    assert registry.build("step", {"quantize": {"include": "conv1"}}).include == ("conv1",)
    assert registry.build("step", {"prune": {"rewrite": "lsq"}}).rewrite == "lsq"
    assert registry.build("step", {"train": {"terms": "hints"}}).terms == ("hints",)
    with pytest.raises(RecipeError, match=r"exclude = 3 is not right"):
        registry.build("step", {"factorize": {"exclude": 3}})
