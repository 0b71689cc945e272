"""Deep Compression: zeros stay zeros to the bundle, and layers get the values that they were promised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import penjing
from penjing.core.errors import PlanError
from penjing.exporting.bundle import WEIGHTS, place_of, read_manifest
from penjing.exporting.bundle import load as unbundled
from penjing.graph.quantized import quantized
from penjing.methods.deep_compression import deep_compression
from tiny import pictures, skilled, tiny


@pytest.mark.parametrize(
    "wrong",
    [
        {"sparsity": 1.0}, {"quality": 0.0}, {"rounds": 0}, {"epochs": 0}, {"shared": 0}, {"conv_bits": 9},
        {"linear_bits": 0},
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(PlanError, match=rf"deep_compression: {next(iter(wrong))} .*got"):
        deep_compression(**wrong)


def test_a_quality_takes_the_place_of_the_share() -> None:
    by_share, by_quality = deep_compression(rounds=2)(), deep_compression(rounds=2, quality=0.7)()
    assert [step["prune"]["budget"] for step in by_share[:4:2]] != [{}, {}]
    cuts = [step["prune"] for step in by_quality[:4:2]]
    assert [(cut["budget"], cut["allocator"]) for cut in cuts] == [({}, {"threshold": {"k": 0.7}})] * 2
    assert by_share[4:] == by_quality[4:]


@pytest.mark.parametrize("how", [{"sparsity": 0.8}, {"quality": 1.0}], ids=str)
def test_pruned_weights_are_zero_to_the_end_and_the_others_few(how: dict[str, Any], tmp_path: Path) -> None:
    method = deep_compression(**how, rounds=1, epochs=1, conv_bits=4, linear_bits=3, shared=1, lr=0.02)
    data = pictures(tmp_path)
    result = penjing.run(skilled(), data, [method, "export", "check"], folder=tmp_path / "run", seed=0)
    layers = quantized(result.model)
    assert set(layers) == {"stem", "conv1", "conv2", "linear"}
    zeros = 0
    for name, layer in layers.items():
        pruned = layer.weight == 0  # of what was clustered
        values = layer.weights(layer.weight).detach()
        assert bool(pruned.any()) and bool((values[pruned] == 0).all()), name
        assert len(values.unique()) <= (8 if name == "linear" else 16)
        assert len(values[~pruned].unique()) > 1
        zeros += int(pruned.sum())
    whole = sum(p.numel() for p in skilled().parameters())
    if "sparsity" in how:
        assert zeros == pytest.approx(0.8 * whole, rel=0.02)
    files = place_of(tmp_path / "run")
    assert set(read_manifest(files).packed) == {f"{name}.weight" for name in layers}
    assert (files / WEIGHTS).stat().st_size < 4 * whole / 5  # a fifth holds all: 4 bits or none, norms and names
    again = unbundled(tmp_path / "run", tiny, packed=False)
    x = torch.randn(4, 3, 8, 8)
    assert torch.equal(again(x), result.model.eval()(x))
