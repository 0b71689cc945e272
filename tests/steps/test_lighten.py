"""The step that lets each layer become the block of a light architecture: plans, proofs, results, files, bad input."""

import json

import pytest
import torch

import penjing
from penjing.core.errors import Infeasible, PlanError, RecipeError
from penjing.data import load
from penjing.dry_run import previewed
from penjing.graph.chains import chains_of
from penjing.steps.lighten import lighten
from penjing.steps.menus import _beaten
from penjing.steps.order import ordered
from penjing.steps.prune import prune
from penjing.steps.reconstruct import reconstruct
from penjing.steps.state import Run, State
from penjing.targets.find import find
from tiny import pictures, skilled, tiny

X = torch.randn(4, 3, 8, 8)


@pytest.fixture(scope="module")
def learned():
    return skilled()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return load(pictures(tmp_path_factory.mktemp("pictures")), seed=0)


def state_of(model, data):
    model = model.eval()
    return State(model, model, data, ((X,), {}))


def test_a_network_is_lightened_refitted_trained_checked_and_built_again(tmp_path, learned, data):
    steps = [
        lighten(images=64, include=("conv*",)), reconstruct(images=64), {"train": {"epochs": 1, "lr": 0.01}},
        "recalibrate", "export", "check",
    ]  # fmt: skip
    result = penjing.run(learned, data, steps, "macs=0.5x", folder=tmp_path / "run")
    original, small = result.results["rows"]
    assert small["macs"] <= 0.5 * original["macs"] and small["accuracy"] >= original["accuracy"] - 10
    assert all(certificate["ok"] for certificate in result.results["certificates"])
    told = {one["layer"]: one for one in result.results["lightened"]}
    assert set(told) == {"conv1", "conv2"} and {name for name, one in told.items() if one["family"]} == set(
        chains_of(result.model)
    )
    for one in told.values():
        assert one["macs"][1] < one["macs"][0] and 0 < one["error"] < 1 and len(one["offered"]) > 2
    assert not [site for site in result.results["sites"] if site["kind"] == "lighten"]
    again = penjing.load(tmp_path / "run", builder=tiny)
    assert torch.equal(again(X), result.model.eval()(X))
    assert "Of 2 layers with a menu" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize("family", ["fire", "shift"])
def test_one_family_alone_goes_through_every_step(tmp_path, learned, data, family):
    """A fire module ends with filters side by side, which are not refitted; a shift is found in a bundle."""
    steps = [lighten(images=64, families=family, include="conv*"), reconstruct(images=64), "export", "check"]
    result = penjing.run(learned, data, steps, "macs=0.7x", folder=tmp_path / "run")
    assert {one["family"] for one in result.results["lightened"]} <= {family, ""}
    assert result.results["rows"][1]["macs"] <= 0.7 * result.results["rows"][0]["macs"]
    assert torch.equal(penjing.load(tmp_path / "run", builder=tiny)(X), result.model.eval()(X))


def test_channels_and_options_come_out_of_one_plan(tmp_path, learned, data):
    run = Run(tmp_path, {"macs": "0.12x"}, 0)
    made = lighten(images=64, rewrite="channels")(state_of(learned, data), run)
    assert made.plans[-1].rewrites() == ["channels", "lighten"]
    assert [certificate["ok"] for certificate in run.noted("certificates")] == [True]


def test_ranks_compete_with_families_in_one_menu(tmp_path, learned, data):
    run = Run(tmp_path, {"macs": "0.7x"}, 0)
    lighten(images=64, families=("shift", "svd_spatial"), include="conv2")(state_of(learned, data), run)
    (told,) = run.noted("lightened")
    assert {offer.split(",")[0] for offer in told["offered"]} == {"shift", "svd_spatial"}


def test_what_the_target_prices_decides_what_is_offered(tmp_path, learned, data):
    """On a systolic array a depthwise layer is slow, and a shift nearly free."""
    offered = {}
    for target in ("edge_tpu_like", "eyeriss_v1"):
        step = lighten(images=64, include=("conv*",), budget={"latency": "0.97x"})
        run = Run(tmp_path, seed=0, target=find(target))
        step(state_of(learned, data), run)
        offered[target] = run.noted("lightened")[0]["offered"]
    assert offered["edge_tpu_like"] != offered["eyeriss_v1"]


def test_a_preview_tells_what_each_layer_becomes(tmp_path, learned, data):
    steps = [lighten(images=64, include=("conv*",)), "export"]
    preview = previewed(steps, state_of(learned, data), Run(tmp_path, {"macs": "0.5x"}, 0))
    assert [one["layer"] for one in json.loads(json.dumps(preview.facts["lightened"]))] == ["conv1", "conv2"]
    assert "Of 2 layers with a menu" in str(preview) and "response missed" in str(preview)


def test_points_that_another_is_nowhere_worse_than_are_beaten():
    points = [(1.0, 3.0), (2.0, 2.0), (2.0, 2.5), (3.0, 2.0), (4.0, 0.0)]
    assert [point for point in points if _beaten(point, [p for p in points if p is not point])] == [
        (2.0, 2.5), (3.0, 2.0)
    ]  # fmt: skip
    assert not _beaten((1.0, 1.0), [(1.0, 1.0)])


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"families": ("fyre",)}, r"lighten: there is no family 'fyre'. Did you mean 'fire'"),
        ({"families": ()}, "lighten: families names what layers may become"),
        ({"images": 0}, "lighten: images must be a whole number"),
        ({"rewrite": "lighten"}, "lighten: rewrite names what is cut beside"),
        ({"rewrite": "svd"}, "one plan factorises by one rewrite; got svd and lighten"),
    ],
)
def test_bad_options_are_refused(options, why):
    with pytest.raises(PlanError, match=why):
        lighten(**options)


def test_steps_that_name_it_are_built_before_anything_starts():
    with pytest.raises(RecipeError, match="allocator"):
        ordered([{"lighten": {"allocator": "knapsac"}}, "export"])
    with pytest.raises(PlanError, match="one plan factorises by one rewrite"):
        prune(rewrite=("lighten", "svd"))


def test_without_pictures_or_what_pays_it_is_refused(tmp_path, learned, data):
    with pytest.raises(penjing.PenjingError, match="lighten"):
        lighten()(state_of(learned, None), Run(tmp_path, {"macs": "0.5x"}, 0))
    with pytest.raises(PlanError, match="no layer has an option of shift"):
        lighten(families="shift", include="linear", images=64)(state_of(learned, data), Run(tmp_path, {"macs": "0.5x"}))
    with pytest.raises(Infeasible):
        lighten(images=64, include="conv2")(state_of(learned, data), Run(tmp_path, {"macs": "0.1x"}))
