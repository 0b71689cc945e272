"""What a target's file holds of measurements is found, and what it was measured on is compared."""

import re
from dataclasses import replace

import pytest

from penjing.core.console import listening
from penjing.core.errors import RecipeError
from penjing.core.registry import build
from penjing.costs.design import kind_of
from penjing.costs.measured import known, measured
from penjing.exporting.measure import cpu_name
from penjing.targets import find
from penjing.targets.runtime import Runtime

from .test_fit import LAYERS, fit, stairs

MODEL = fit({shape: stairs(shape) for shape in LAYERS})
HERE = {"version": build("runtime", "onnxruntime").version(), "cpu": cpu_name()}
BOX = Runtime("box", "onnxruntime", table={**HERE, **MODEL.to_dict()})

NETWORK = {"measured": 2.5, "median": 2.6, "values": 0, "predicted": {"conv": 1.0, "pointwise": 1.0},
           "layers": {"conv": 1.2, "pointwise": 1.3}}  # fmt: skip
RUN = {"run": "a1", "name": "net", "date": "2026-01-02", "machine": "some"}


def remarks(target: Runtime) -> list[str]:
    heard: list[str] = []
    with listening(lambda event: heard.append(str(event["text"]))):
        assert measured(target) == MODEL
    return heard


def test_times_are_found_where_there_are_some() -> None:
    assert remarks(BOX) == []
    assert measured(find("onnxruntime")) is None
    assert measured(replace(BOX, table={"cpu": "some"})) is None


@pytest.mark.parametrize(("key", "other"), [("version", "0.1"), ("cpu", "An abacus")])
def test_another_machine_or_version_is_named(key: str, other: str) -> None:
    (said,) = remarks(replace(BOX, table={**BOX.table, key: other}))
    assert re.search(rf"box was measured on .*{other}, and this is .*{re.escape(HERE[key])}", said)


@pytest.mark.parametrize("change", [{"batch": 2}, {"threads": 2}, {"precision": "bf16"}])
def test_what_was_measured_holds_for_its_own_conditions_alone(change: dict[str, object]) -> None:
    assert measured(BOX.at(**change)) is None
    assert measured(BOX.at(batch=1, threads=1, precision="fp32")) == MODEL


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"layers": 3}, "layers = 3 must hold key: value pairs"),
        ({"fit": None}, "fit = None must hold key: value pairs"),
        ({"runs": {}}, "runs = {} must be a list"),
        ({"runs": [3]}, "runs[0] = 3 must hold key: value pairs"),
        ({"runs": [{"run": "a", "name": "b", "date": 3}]}, "runs[0].date = 3 must be text"),
        (
            {"runs": [RUN | {"networks": {"original": NETWORK | {"measured": 0.0}}}]},
            "original.measured = 0.0 is no time",
        ),
        ({"runs": [RUN | {"networks": {"a": NETWORK | {"values": -1}}}]}, "runs[0].networks.a.values = -1 must be"),
        ({"runs": [RUN | {"networks": {"a": NETWORK | {"layers": {"conv": "x"}}}}]}, "a.layers.conv = 'x' is no time"),
        ({"runs": [RUN | {"networks": {"a": {}}}]}, "runs[0].networks.a.values is missing"),
    ],
)
def test_what_is_wrong_is_named_with_its_file(change: dict[str, object], says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        measured(replace(BOX, table={**BOX.table, **change}, file="my/box.yaml"))
    assert str(caught.value).startswith("my/box.yaml: ") and says in str(caught.value)


def test_runs_correct_the_times() -> None:
    target = replace(BOX, table={**BOX.table, "runs": [RUN | {"networks": {"original": NETWORK}}]})
    found = known(target)
    assert found is not None and found.runs[0].to_dict() == target.table["runs"][0]
    corrected = measured(target)
    for shape in LAYERS[:24]:
        by = 1.2 if kind_of(shape) == "conv" else 1.25  # half of the network, one part in five more
        assert corrected.predict(shape) == pytest.approx(by * MODEL.predict(shape), rel=0.06)
    assert known(find("onnxruntime")) is None
