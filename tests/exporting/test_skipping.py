"""Skipping: equal to the dense path whatever the shape, and what it says it executed is what it executed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from penjing.core.errors import PlanError
from penjing.exporting.skipping import race, skippers, skipping
from penjing.graph.collaborative import Collaborative, Partner, attach
from tiny import tiny


class One(nn.Module):
    """A convolution, a batch norm and a ReLU."""

    def __init__(self, ins: int = 4, outs: int = 6, **shape: Any) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(ins, outs, **{"kernel_size": 3, "padding": 1, **shape}), nn.BatchNorm2d(outs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


def collaborative(seed: int, kind: Any = "shared", **shape: Any) -> One:
    """Return one with every number drawn, batch norms' statistics among them."""
    model = One(**shape).eval()
    attach(model, {"conv": Partner(kind, "norm")})
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=rng))
                if name.endswith("running_var"):
                    tensor.abs_().add_(0.1)
    return model


def layer_of(model: One) -> Collaborative:
    assert isinstance(model.conv, Collaborative)
    return model.conv


shapes = st.fixed_dictionaries(
    {
        "kernel_size": st.sampled_from([1, 2, 3, (3, 1), (2, 3)]),
        "stride": st.sampled_from([1, 2, (1, 2)]),
        "padding": st.sampled_from([0, 1, (2, 1)]),
        "dilation": st.sampled_from([1, 2, (1, 2)]),
        "bias": st.booleans(),
    }
)


@settings(max_examples=40, deadline=None)
@given(shapes, st.integers(0, 2**16), st.sampled_from([(1, 7, 9), (3, 6, 6)]))
def test_a_shared_map_skips_and_the_result_is_the_dense_one(
    shape: dict[str, Any], seed: int, size: tuple[int, int, int]
) -> None:
    model = collaborative(seed, **shape).double()
    x = torch.randn(size[0], 4, *size[1:], dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    fast = skipping(model)
    with torch.no_grad():
        torch.testing.assert_close(fast(x), model(x), rtol=1e-9, atol=1e-9)
        maps = layer_of(model).map(x)
    one = skippers(fast)["conv"]
    weights = layer_of(model).weight.numel()
    assert one.zeros == int((maps == 0).sum()) and one.values == maps.numel()
    padded = one.macs - (one.values - one.zeros) * weights
    assert one.dense == maps.numel() * weights and padded >= 0


SAME = {"padding": "same", "dilation": 2}


@pytest.mark.parametrize("shape", [SAME, SAME | {"kernel_size": 4}, {"padding": "valid"}], ids=str)
def test_padding_by_name(shape: dict[str, Any]) -> None:
    model = collaborative(3, **shape).double()
    x = torch.randn(2, 4, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(skipping(model)(x), model(x))


@pytest.mark.parametrize(("kind", "stride"), [("shared", 1), ("shared", 2), ("pointwise", 1), ("pointwise", 2)])
def test_the_macs_it_tells_are_the_multiplications_that_torch_counts(kind: str, stride: int) -> None:
    model = collaborative(5, kind, outs=2, stride=stride)
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    fast = skipping(model)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        made = fast(x)
    with torch.no_grad():
        torch.testing.assert_close(made, model(x), rtol=1e-5, atol=1e-5)
    one = skippers(fast)["conv"]
    assert one.macs * 2 == counter.get_total_flops() and 0 < one.zeros < one.values
    one.forget()
    assert (one.macs, one.dense, one.zeros, one.values) == (0, 0, 0, 0)


@pytest.mark.parametrize("kind", ["shared", "pointwise"])
def test_a_map_that_is_negative_everywhere_executes_nothing_of_the_convolution(kind: str) -> None:
    model = collaborative(6, kind)
    norm = layer_of(model).map.norm
    with torch.no_grad():
        norm.weight.fill_(0)
        norm.bias.fill_(-1)
        fast = skipping(model)
        x = torch.randn(2, 4, 8, 8)
        assert not fast(x).any() and not model(x).any()
    one = skippers(fast)["conv"]
    pixels = 2 * 10 * 10 if kind == "shared" else 2 * 8 * 8
    assert one.macs == pixels * layer_of(model).map.conv.weight.numel() and one.zeros == one.values


def test_of_ones_the_share_of_zeros_is_known() -> None:
    model = collaborative(7, padding=0)
    layer = layer_of(model)
    with torch.no_grad():
        layer.map.conv.weight.fill_(1)  # 36 everywhere
        layer.map.norm.running_mean.fill_(0)  # type: ignore[union-attr]
        layer.map.norm.weight.fill_(1)
        layer.map.norm.bias.fill_(0)
        x = torch.ones(1, 4, 8, 8)
        x[..., :4] = -1
        fast = skipping(model)
        torch.testing.assert_close(fast(x), model(x), rtol=1e-5, atol=1e-5)
        assert bool(((model(x) != 0).any(1) <= (layer.map(x)[:, 0] != 0)).all())
    one = skippers(fast)["conv"]
    assert one.zeros / one.values == 3 / 6  # columns that see more of the left half


def test_positions_gathered_in_many_blocks_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = collaborative(9)
    x = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr("penjing.exporting.skipping.CACHED", 100)  # two positions, of 36 numbers each
    with torch.no_grad():
        torch.testing.assert_close(skipping(model)(x), model(x), rtol=1e-5, atol=1e-5)


def test_there_must_be_something_to_skip_by_and_races_take_turns() -> None:
    with pytest.raises(PlanError, match=r"TinyNet has no collaborative layer.*lccl"):
        skipping(tiny())
    model = collaborative(8)
    threads = torch.get_num_threads()
    timings = race({"dense": model.train(), "skipping": skipping(model)}, [torch.randn(1, 4, 8, 8)], rounds=2)
    assert list(timings) == ["dense", "skipping"] and all(t.median_ms > 0 for t in timings.values())
    assert model.training and torch.get_num_threads() == threads
