"""A fit finds the staircase that the times were made with."""

import re
from itertools import islice
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.core.errors import PenjingError, PlanError
from penjing.costs.design import KINDS, design, kind_of
from penjing.costs.fit import FEWEST, StaircaseModel, Stairs, fit
from penjing.costs.notation import read_shape, written
from penjing.costs.probe import Shape
from penjing.steps import price

LAYERS = list(islice(design(seed=0, batch=1), 360))


def side(size: int, width: int, kernel: int = 3) -> Shape:
    return Shape(width, width, 1, (kernel,) * 2, (1, 1), (1, 1), False, (size, size), (size, size))


def stairs(shape: Shape) -> float:
    """16 channels a block, both ways, 50 GMAC/s, a microsecond a layer; depthwise and picks: 3 ns a value written."""
    positions = float(np.prod(shape.out_size))
    if kind_of(shape) in ("depthwise", "pick"):
        return 1e-3 + 3e-6 * (-(-shape.out_channels // 16) * 16) * positions
    read, made = (-(-n // shape.groups // 16) * 16 for n in (shape.in_channels, shape.out_channels))
    return 1e-3 + shape.groups * read * made * positions * float(np.prod(shape.kernel)) / 50e6


def noisy(shape: Shape) -> float:
    """Every tenth layer was disturbed by a neighbour, all others by a percent or so."""
    random = np.random.default_rng(abs(hash(shape)))
    return stairs(shape) * (random.uniform(1.5, 3.0) if random.random() < 0.1 else random.uniform(0.99, 1.02))


@pytest.mark.parametrize(("time", "within"), [(stairs, 1e-3), (noisy, 0.05)])
def test_the_stairs_are_found_again_on_layers_not_seen(time, within) -> None:
    model = fit({shape: time(shape) for shape in LAYERS[:300]})
    for kind in ("conv", "pointwise"):
        assert (model.stairs[kind].read_step, model.stairs[kind].write_step) == (16, 16)
    assert model.stairs["depthwise"].write_step == model.stairs["pick"].write_step == 16
    errors = [abs(model.fitted(shape) / stairs(shape) - 1) for shape in LAYERS[300:]]
    assert float(np.median(errors)) < within
    assert model.fitted(side(14, 100)) == pytest.approx(model.fitted(side(14, 112)), rel=0.02)
    assert model.fitted(side(14, 112)) < 0.85 * model.fitted(side(14, 116))


def test_one_disturbed_layer_does_not_decide_on_larger_ones() -> None:
    largest = Shape(1024, 1200, 1, (1, 1), (1, 1), (1, 1), False, (2, 2), (2, 2))
    small = [shape for shape in LAYERS if kind_of(shape) == "pointwise" and shape.weights < 2**20]
    model = fit({shape: stairs(shape) for shape in small} | {largest: 20 * stairs(largest)})
    larger = Shape(2048, 2048, 1, (1, 1), (1, 1), (1, 1), False, (2, 2), (2, 2))
    assert model.predict(larger) < 1.5 * stairs(larger)


def test_what_was_measured_wins_over_the_fit() -> None:
    times = {shape: stairs(shape) for shape in LAYERS} | {LAYERS[0]: 123.0}
    model = fit(times)
    assert model.predict(LAYERS[0]) == 123.0 and model.fitted(LAYERS[0]) < 100
    assert model.predict(side(14, 0)) == 0.0


@pytest.fixture(scope="module")
def model() -> StaircaseModel:
    return fit({shape: stairs(shape) for shape in LAYERS})


def test_a_model_is_plain_data_and_back(model: StaircaseModel) -> None:
    again = StaircaseModel.from_dict(model.to_dict(), 1)
    assert again == model
    assert all(again.predict(shape) == model.predict(shape) for shape in [*LAYERS[:20], side(9, 36)])


def fits(**change: object) -> dict[str, object]:
    return {"fit": {"conv": {"read_step": 1, "write_step": 1, "ms": {}, **change}}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (fits(read_step=0), "fit.conv.read_step = 0 must be a whole number, 1 or more"),
        (fits(read_step=8.5), "fit.conv.read_step = 8.5 must be a whole number, 1 or more"),
        (fits(read_step=float("inf")), "fit.conv.read_step = inf must be a whole number, 1 or more"),
        (fits(write_step=True), "fit.conv.write_step = True must be a whole number, 1 or more"),
        (fits(ms={"luck": 1.0}), "fit.conv.ms has no term 'luck'"),
        (fits(ms={"macs": -1.0}), "fit.conv.ms.macs = -1.0 is no time in ms"),
        (fits(ms={"macs": float("nan")}), "fit.conv.ms.macs = nan is no time in ms"),
        (fits(ms=[1]), "fit.conv.ms = [1] must hold key: value pairs"),
        ({"fit": {"conv": {"ms": {}}}}, "fit.conv.read_step is missing"),
        ({"fit": {"conv": 3}}, "fit.conv = 3 must hold key: value pairs"),
        ({"fit": 3}, "fit = 3 must hold key: value pairs"),
        ({"layers": {"8>8 k3": 1.0}}, "layers: '8>8 k3' is no layer"),
        ({"layers": {"8>8": "fast"}}, "layers.8>8 = 'fast' is no time in ms"),
        ({"layers": {"8>8": True}}, "layers.8>8 = True is no time in ms"),
        ({"layers": None}, "layers = None must hold key: value pairs"),
    ],
)
def test_what_is_wrong_with_the_data_is_said(change: dict[str, object], message: str, model: StaircaseModel) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        StaircaseModel.from_dict({**model.to_dict(), **change}, 1)


def test_a_kind_that_was_not_measured_is_named(model: StaircaseModel) -> None:
    shape = Shape(8, 8, 1, (2, 2), (2, 2), (1, 1), True, (4, 4), (8, 8))
    assert not model.knows(shape) and model.knows(LAYERS[0]) and model.knows(side(9, 36))
    with pytest.raises(PlanError, match="transposed layers were not measured on this target, only conv, "):
        model.predict(shape)
    few = dict.fromkeys(LAYERS[:FEWEST], 1.0)
    with pytest.raises(PenjingError, match=f"are too few to fit; {FEWEST} are needed"):
        fit(few)


@settings(max_examples=60, deadline=None)
@given(width=st.integers(2, 300), size=st.sampled_from([4, 7, 14, 28]), batch=st.sampled_from([1, 8]))
def test_a_channel_less_is_never_dearer(width: int, size: int, batch: int) -> None:
    terms = {"macs": 0.02, "all_macs": 0.001, "rows": 0.02, "reads": 0.1, "writes": 0.1, "weights": 0.01,
             "weights_over_262144": 0.4, "layers": 0.002}  # fmt: skip
    made = StaircaseModel(batch, {"conv": Stairs(8, 16, terms)})
    assert made.predict(side(size, width + 5)) <= made.predict(side(size, width + 6))


def test_the_border_is_known() -> None:
    only = Stairs(1, 1, {"macs": 1.0})
    # 2x2 positions of a padded 3x3 kernel: each meets four pixels.
    assert only.predict(side(2, 8), 1) == pytest.approx(8 * 8 * 16 / 1e6)
    assert only.predict(side(2, 8), 3) == pytest.approx(3 * 8 * 8 * 16 / 1e6)


def test_the_design_is_the_same_for_the_same_seed_and_has_every_kind() -> None:
    assert list(islice(design(0, 1), 40)) == LAYERS[:40] != list(islice(design(1, 1), 40))
    assert len(set(LAYERS)) == len(LAYERS)
    kinds = [kind_of(shape) for shape in LAYERS]
    assert kinds[: len(KINDS)] == kinds[len(KINDS) : 2 * len(KINDS)] and set(kinds) == {
        "conv", "pointwise", "depthwise", "grouped", "linear", "image", "pick"
    }  # fmt: skip
    assert all(shape.macs * 32 <= 120_000_000 for shape in islice(design(0, 32), 60))


@settings(max_examples=80, deadline=None)
@given(
    rank=st.integers(0, 3), channels=st.tuples(st.integers(1, 4096), st.integers(1, 4096)), transposed=st.booleans(),
    sides=st.tuples(*[st.integers(1, 300)] * 3), groups=st.integers(1, 64), dilation=st.integers(1, 3),
)  # fmt: skip
def test_a_shape_is_text_and_back(rank, channels, transposed, sides, groups, dilation) -> None:
    some = tuple(sides[:rank])
    shape = Shape(*channels, groups, some, some, (dilation,) * rank, transposed and rank > 0, some, some)
    assert read_shape(written(shape)) == shape
    assert read_shape(written(Shape(16, 8, in_size=(5,), out_size=(5,)))) == Shape(16, 8, in_size=(5,), out_size=(5,))


def test_a_file_from_before_picks_were_timed_is_read_and_has_them_timed_by_the_run(monkeypatch) -> None:
    pick = next(shape for shape in LAYERS if kind_of(shape) == "pick")
    whole = fit({shape: stairs(shape) for shape in LAYERS})
    again = StaircaseModel.from_dict(whole.to_dict(), 1)
    assert again.knows(pick) and again.predict(pick) == whole.times[pick]
    older = StaircaseModel.from_dict(fit({s: stairs(s) for s in LAYERS if not s.picks}).to_dict(), 1)
    asked = list[Shape]()
    monkeypatch.setattr(price, "on_file", lambda run: older)
    monkeypatch.setattr(price, "time_shape", lambda shape, *rest: asked.append(shape) or 0.25)
    journal = SimpleNamespace(once=lambda name, work: work())
    run: Any = SimpleNamespace(runtime=("onnxruntime", "fp32"), batch=1, threads=1, journal=journal)
    assert price.timed(run, pick, 1) == 0.25 and asked == [pick]
    assert price.timed(run, LAYERS[0], 1) == older.predict(LAYERS[0]) and asked == [pick]
