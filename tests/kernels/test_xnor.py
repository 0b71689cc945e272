"""Packed layers of signs give, to the bit, what the same signs give as floats; on every path, on any threads."""

import copy
import os

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st

from penjing.core.errors import PlanError
from penjing.kernels import build, xnor
from penjing.kernels.xnor import XnorConv2d, XnorLinear
from penjing.quantizers.base import sign

LIBRARY = build.load("xnor", xnor.DECLARATIONS)
HERE = build.PATHS[: 1 + LIBRARY.path()] if LIBRARY else ()

compiled = pytest.mark.skipif(LIBRARY is None, reason="the kernels cannot be compiled here, or are off")


def drawn(*shape, seed=0):
    """Numbers some of which are 0, -0, NaN, infinite or too small to be normal."""
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=random)
    odd = torch.tensor([0.0, -0.0, float("nan"), float("inf"), -float("inf"), 1e-42, -1e-42])
    where = torch.rand(*shape, generator=random) < 0.2
    return torch.where(where, odd[torch.randint(7, shape, generator=random)], x)


def by_floats(x, signs, scale, bias, layer):
    """The same from the definition, in float64."""
    left, right, top, bottom = layer.padding
    x = F.pad(sign(x).double(), (left, right, top, bottom), value=-1.0)
    y = F.conv2d(x, signs.double(), None, layer.stride, 0, layer.dilation, layer.groups)
    return y.float() * scale.view(-1, 1, 1) + bias.view(-1, 1, 1)


def made(seed, ins, outs, kernel, groups, **more):
    random = torch.Generator().manual_seed(seed)
    signs = sign(torch.randn(outs * groups, ins, *kernel, generator=random))
    scale, bias = torch.rand(outs * groups, generator=random), torch.randn(outs * groups, generator=random)
    return XnorConv2d(signs, scale, bias, groups=groups, **more), signs, scale, bias


numbers = st.integers(1, 3)


@compiled
@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 99),
    images=numbers,
    groups=numbers,
    ins=st.sampled_from([1, 2, 31, 32, 33, 63, 64, 65, 130, 192]),
    outs=st.sampled_from([1, 3, 7, 8, 9, 31, 32, 33, 40, 72]),
    size=st.tuples(st.integers(1, 9), st.integers(1, 19)),
    kernel=st.tuples(numbers, numbers),
    stride=st.tuples(numbers, numbers),
    dilation=st.tuples(numbers, numbers),
    padding=st.one_of(st.integers(0, 3), st.tuples(*[st.integers(0, 3)] * 4), st.sampled_from(["same"])),
)
@example(  # where torch is wrong of a weight whose strides are odd
    seed=0, images=2, groups=1, ins=1, outs=1, size=(2, 2), kernel=(3, 3), stride=(1, 2), dilation=(1, 1),
    padding="same",
)  # fmt: skip
def test_all_paths_equal_floats(seed, images, groups, ins, outs, size, kernel, stride, dilation, padding):
    more = {"stride": stride, "dilation": dilation, "padding": padding}
    layer, *held = made(seed, ins, outs, kernel, groups, **more)
    x = drawn(images, ins * groups, *size, seed=seed)
    try:
        right = by_floats(x, *held, layer)
    except RuntimeError:  # the kernel is larger than the picture
        with pytest.raises(PlanError, match=r"is too small for a kernel"):
            layer(x)
        return
    assert torch.equal(layer.reference(x), right)
    for layer.path in HERE:
        for layer.threads in (1, 3):
            assert torch.equal(layer(x), right), (layer.path, layer.threads)


@compiled
@pytest.mark.parametrize("path", HERE)
def test_sums_of_many_words(path):
    """Counts by bytes overflow unless they are emptied in time: 9 * 36 words that all differ, and a few more."""
    for ins in (64 * 31, 64 * 32, 64 * 36):
        layer = XnorConv2d(torch.ones(9, ins, 3, 3), padding=1, path=path)
        assert torch.equal(layer(-torch.ones(1, ins, 3, 5)), torch.full((1, 9, 3, 5), -9.0 * ins))


@compiled
@pytest.mark.parametrize("path", HERE)
def test_thresholds_take_the_place_of_a_batch_norm(path):
    """Dossier of Courbariaux et al.: a batch norm and a sign are a comparison, turned where the weight is negative."""
    layer, signs, scale, bias = made(1, 70, 16, (3, 3), 2, padding=1)
    random = torch.Generator().manual_seed(2)
    gamma, mean, beta = (torch.randn(140, generator=random).double() for _ in range(3))
    theta = (mean - beta / gamma).float()
    x = drawn(2, 140, 6, 7, seed=3).nan_to_num(0.5)
    normed = gamma.view(-1, 1, 1) * (x.double() - mean.view(-1, 1, 1)) + beta.view(-1, 1, 1)
    folded = XnorConv2d(signs, scale, bias, padding=1, groups=2, threshold=theta, below=gamma < 0, path=path, threads=2)
    assert torch.equal(folded(x), by_floats(normed.float(), signs, scale, bias, layer))
    assert torch.equal(folded.reference(x), folded(x))


def test_the_dossiers_pad_is_minus_one():
    layer = XnorConv2d(torch.ones(1, 1, 3, 3), padding=1)
    assert layer(torch.ones(1, 1, 3, 3)).tolist() == [[[[-1.0, 3.0, -1.0], [3.0, 9.0, 3.0], [-1.0, 3.0, -1.0]]]]


@pytest.mark.parametrize("path", HERE or [None])
@pytest.mark.parametrize("shape", [(70,), (1, 70), (5, 70), (2, 3, 70), (0, 70)])
def test_a_linear_layer(path, shape):
    random = torch.Generator().manual_seed(4)
    weight, x = torch.randn(19, 70, generator=random), drawn(*shape)
    layer = XnorLinear(sign(weight), torch.tensor(0.5), torch.arange(19.0), path=path)
    right = F.linear(sign(x), sign(weight)) * 0.5 + torch.arange(19.0)
    assert torch.equal(layer(x), right) and torch.equal(layer.reference(x), right)


def test_without_kernels_it_is_pytorch(monkeypatch, capsys):
    monkeypatch.setenv(build.SWITCH, "off")
    for remembered in (build.load, build.switch):
        remembered.cache_clear()
    layer, *held = made(5, 40, 12, (3, 2), 1, padding=2)
    x = drawn(2, 40, 5, 6)
    assert torch.equal(layer(x), by_floats(x, *held, layer))
    assert capsys.readouterr().err == ""
    monkeypatch.undo()
    for remembered in (build.load, build.switch):
        remembered.cache_clear()


def test_a_layer_is_a_module():
    """Copied, stored and filled again; strided inputs; and in a process forked after it has run on threads."""
    layer, *_ = made(6, 65, 9, (3, 3), 1, threads=3)
    other, *_ = made(7, 65, 9, (3, 3), 1)
    x = drawn(6, 5, 65, 2).permute(3, 2, 0, 1)
    y = layer(x)
    assert not torch.equal(other.reference(x), y)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x), y) and torch.equal(other.reference(x), y) and torch.equal(copy.deepcopy(layer)(x), y)
    doubled = {name: held.double() for name, held in layer.state_dict().items()}
    with pytest.raises(PlanError, match=r"words of a packed layer is torch.int64; got torch.float64"):
        other.load_state_dict(doubled, assign=True)
    doubled = {name: held.double() if held.is_floating_point() else held for name, held in layer.state_dict().items()}
    other.load_state_dict(doubled, assign=True)
    assert torch.equal(other(x), y) and torch.equal(layer.double()(x), y)
    with torch.autocast("cpu"):
        assert torch.equal(layer.reference(x), y)
    child = os.fork()
    if not child:
        os._exit(0 if torch.equal(layer(x), y) else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"signs": torch.ones(4, 3, 3)}, r"Signs \[4, 3, 3\] are none of a convolution"),
        ({"groups": 3}, r"in 3 groups"),
        ({"signs": torch.ones(1, 1, 1, 1).expand(1, 2**24, 1, 1)}, r"too large: fewer than 16777216"),
        ({"scale": torch.ones(3)}, r"scale is float32 \[4\]; got torch.float32 \[3\]"),
        ({"bias": torch.ones(4, dtype=torch.int64)}, r"bias is float32 \[4\]"),
        ({"threshold": torch.ones(3)}, r"threshold is float32 \[2\]"),
        ({"below": torch.ones(2)}, r"below is bool \[2\]"),
        ({"stride": 0}, r"stride is one or two numbers from 1 on; got 0"),
        ({"padding": -1}, r"padding is 'same', 'valid' or .* got -1"),
        ({"padding": "full"}, r"padding is 'same', 'valid' or .* got 'full'"),
    ],
)
def test_what_does_not_fit_is_refused(given, said):
    with pytest.raises(PlanError, match=said):
        XnorConv2d(**{"signs": torch.ones(4, 2, 3, 3)} | given)


def test_inputs_that_do_not_fit_are_refused():
    layer = XnorConv2d(torch.ones(4, 2, 3, 3))
    for x, said in (
        (torch.ones(1, 3, 5, 5), r"reads \[n, 2, h, w\]; got \[1, 3, 5, 5\]"),
        (torch.ones(2, 5, 5), r"reads \[n, 2, h, w\]"),
        (torch.ones(1, 2, 2, 5), r"too small for a kernel \(3, 3\)"),
        (torch.ones(0, 2, 5, 5), r"too small"),
        (torch.ones(1, 2, 5, 5).double(), r"reads float32; got torch.float64"),
    ):
        for run in (layer, layer.reference):
            with pytest.raises(PlanError, match=said):
                run(x)
    with pytest.raises(PlanError, match=r"\[\.\.\., 7\]; got \[2, 6\]"):
        XnorLinear(torch.ones(3, 7))(torch.ones(2, 6))
    with pytest.raises(PlanError, match=r"none of a linear layer"):
        XnorLinear(torch.ones(3, 7, 1))
