"""Collaborative layers as a step: attached, trained towards the share of zeros, measured, and told."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from penjing.core.errors import PlanError
from penjing.data import load
from penjing.data.data import Data
from penjing.graph.collaborative import collaborators
from penjing.steps.lccl import lccl, outcome
from penjing.steps.state import Run, State
from tiny import pictures, tiny


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return load(pictures(tmp_path_factory.mktemp("data")), seed=0)


def taken(data: Data, step: lccl, model: nn.Module | None = None) -> tuple[State, Run]:
    model = model or tiny().eval()
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder))
        return step(State(model, tiny().eval(), data, ((data.example(2),), {})), run), run


@pytest.mark.parametrize(
    "options", [{"zeros": 0.7}, {"kind": "pointwise"}, {"start": "scratch", "zeros": None}], ids=str
)
def test_maps_get_their_zeros_and_all_is_measured(data: Data, options: dict[str, Any]) -> None:
    state, run = taken(data, lccl(epochs=3, batch=16, images=12, **options))
    (facts,) = run.noted("lccl")
    assert list(facts["layers"]) == ["conv1"] == list(collaborators(state.model))
    assert 0.2 < facts["map zeros"] == facts["layers"]["conv1"]["zeros"] < 0.98 and facts["pictures"] == 12
    assert [one["layer"] for one in facts["relus before"]] == ["stem", "conv1", "conv2"]
    assert [one["layer"] for one in facts["relus after"]] == ["stem", "conv1.map.conv", "conv1", "conv2"]
    stem, conv, linear = 27 * 16 * 64, 2 * 144 * 32 * 64, 48
    assert facts["macs before"] == stem + conv + linear < facts["macs dense"]
    if facts["kind"] == "shared":  # the padded picture has 10 x 10 pixels
        active = (1 - facts["map zeros"]) * 64 * 144 * 32
        assert facts["macs executed"] == pytest.approx(stem + conv / 2 + linear + 100 * 144 + active)
    assert {name: one["median_ms"] > 0 for name, one in facts["latency"].items()} == dict.fromkeys(
        ("before", "dense", "skipping"), True
    )
    (certificate,) = run.noted("certificates")
    assert certificate["name"] == "collaborative equals plain" and certificate["difference"] == 0
    assert run.noted("remarks") == [outcome(facts)] and "The exported file computes every position" in outcome(facts)


def test_the_same_seed_gives_the_same_network(data: Data) -> None:
    step = lccl(epochs=1, batch=16, images=4)
    first, second = (taken(data, step)[0].model.state_dict() for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.values(), second.values(), strict=True))


def test_an_outcome_without_a_gain_says_so() -> None:
    facts = {"macs executed": 50, "macs before": 100, "map zeros": 0.5, "zeros before": 0.4, "zeros after": 0.6,
             "latency": {"before": {"median_ms": 1.0}, "skipping": {"median_ms": 2.0}}}  # fmt: skip
    assert "no gain, 0.50x as fast" in outcome(facts) and "0.50 times" in outcome(facts)
    assert "1.50x as fast" in outcome(
        facts | {"latency": {"before": {"median_ms": 3.0}, "skipping": {"median_ms": 2.0}}}
    )
    assert "torch" not in outcome(facts | {"latency": {}})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"include": ("conv2",)}, r"lccl: conv2 cannot have a collaborative layer: no ReLU .* across a sum"),
        ({"include": ("conv11",)}, r"lccl: no layer is called 'conv11'.*conv1"),
        ({"exclude": ("conv*",)}, r"no layer that include and exclude leave .*stem: it reads the picture"),
        ({"kind": "both"}, r"kind is shared or pointwise; got 'both'"),
        ({"start": "cold"}, r"start is warm or scratch"),
        ({"zeros": 1.0}, r"zeros is the share .* got 1.0"),
        ({"end": 1.5}, r"end is a share of all steps"),
        ({"penalty": -1.0}, r"penalty must be a number, 0 or more"),
        ({"keep": "best"}, r"keep best would go back"),
        ({"images": 0}, r"lccl: images"),
    ],
    ids=str,
)
def test_what_cannot_be_is_told_by_the_name_of_the_layer_or_option(
    data: Data, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(PlanError, match=message):
        taken(data, lccl(epochs=1, **options))


class Peeking(nn.Module):
    """Reads a batch norm that a collaborative layer would take over."""

    def __init__(self) -> None:
        super().__init__()
        self.net = tiny()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x) * self.net.bn1.weight.sum()


def test_a_forward_that_uses_the_parts_in_its_own_way_is_refused_by_the_proof(data: Data) -> None:
    with pytest.raises(PlanError, match=r"fails with .*its forward uses one of net\.conv1"):
        taken(data, lccl(epochs=1, batch=16), Peeking().eval())
