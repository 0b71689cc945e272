"""What a target's file holds of measurements is found, and what it was measured on is compared."""

import re
from dataclasses import replace

import pytest

from penjing.core.console import listening
from penjing.core.errors import PenjingError
from penjing.core.registry import build
from penjing.costs.measured import measured
from penjing.exporting.measure import cpu_name
from penjing.targets import find
from penjing.targets.runtime import Runtime

from .test_fit import LAYERS, fit, stairs

MODEL = fit({shape: stairs(shape) for shape in LAYERS})
HERE = {"version": build("runtime", "onnxruntime").version(), "cpu": cpu_name()}
BOX = Runtime("box", "onnxruntime", table={**HERE, **MODEL.to_dict()})


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


def test_times_that_are_none_are_refused() -> None:
    with pytest.raises(PenjingError, match="cannot be read"):
        measured(replace(BOX, table={"layers": 3}))
