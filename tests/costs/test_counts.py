from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from penjing.core.protocols import Cost
from penjing.core.registry import build, entries
from penjing.costs.counts import conv_weights, macs, memory, nonzero, params, size
from penjing.exporting.onnx import export_onnx

from .drafts import FakeDraft, conv, linear


def test_macs_are_those_of_the_layers() -> None:
    # 8 x 8 positions of 3 x 3 x 3 x 16; 4 x 4 of 9 x 16 depthwise; 10 x 4.
    layers = (conv(3, 16), conv(16, 16, stride=2, groups=16), linear(10, 4))
    assert macs()(FakeDraft(layers)) == 64 * 432 + 16 * 144 + 40


def test_counts_are_read_from_the_draft() -> None:
    draft = FakeDraft((conv(3, 4), conv(4, 4)), parameters=1000, nonzero=300, buffers=77, peak_elements=512)
    assert params()(draft) == 1000
    assert nonzero()(draft) == 300
    assert memory()(draft) == 2048
    assert size()(draft) == 4000 + 2 * 500


@pytest.mark.parametrize("width", [16, 64])
def test_the_predicted_size_is_that_of_the_file_within_5_percent(width: int, tmp_path: Path) -> None:
    stages = [
        nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        for _ in range(6)
    ]
    model = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), *stages)
    file = export_onnx(model, (torch.zeros(1, 3, 8, 8),), None, tmp_path / "x.onnx", quick=True)
    layers = (conv(3, width), *[conv(width, width)] * 6)
    predicted = size()(FakeDraft(layers, parameters=sum(p.numel() for p in model.parameters())))
    assert predicted == pytest.approx(file.stat().st_size, rel=0.05)


@pytest.mark.parametrize("name", ["params", "macs", "size", "memory", "nonzero", "conv_weights", "latency", "error"])
def test_every_cost_is_registered_with_its_unit(name: str) -> None:
    cost = build("cost", name)
    assert isinstance(cost, Cost) and cost.unit
    assert cost.cheap is (name not in ("latency", "error"))
    assert entries("cost")[name].unit == cost.unit
    assert cost == build("cost", {name: {}}) and hash(cost) == hash(build("cost", name))


def test_weights_of_convolutions_are_counted_once_by_density_and_without_linear_layers() -> None:
    first, second = conv(3, 4, weight="a", density=0.25), conv(4, 4, weight="b")
    assert conv_weights()(FakeDraft((first, second, second, linear(4, 10)))) == 27 + 144


def test_a_layer_that_runs_often_saves_its_bits_once() -> None:
    layer = replace(conv(4, 4, weight="b"), stored_bits=2 * 144)
    bare, once, often = (size()(FakeDraft((layer,) * times, parameters=144)) for times in (0, 1, 3))
    assert bare - 144 * (4 - 2 / 8) < once < often == once + 2 * (once - bare + 144 * (4 - 2 / 8))
