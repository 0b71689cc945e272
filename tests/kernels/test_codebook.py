"""Layers of few numbers give what the same numbers give as floats, but for rounding; on every path, on any threads."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.core.errors import PlanError
from penjing.kernels import build, codebook
from penjing.kernels.codebook import CodebookConv2d, CodebookLinear

LIBRARY = build.load("codebook", codebook.DECLARATIONS)
HERE = build.PATHS[: 1 + LIBRARY.path()] if LIBRARY else ()

compiled = pytest.mark.skipif(LIBRARY is None, reason="the kernels cannot be compiled here, or are off")


def drawn(seed, levels, *shape):
    """Codes, a table, a scale, a bias, and the weight that they make."""
    random = torch.Generator().manual_seed(seed)
    codes = torch.randint(levels, shape, generator=random, dtype=torch.uint8)
    table, bias = torch.randn(levels, generator=random), torch.randn(shape[0], generator=random)
    scale = torch.rand(shape[0], generator=random) - 0.5
    return codes, table, scale, bias, table[codes.long()] * scale.view(-1, *[1] * (len(shape) - 1))


def close(y, run, x, weight, bias):
    """Within 1e-5 of float64, by the size of what is added up."""
    right, size = run(x.double(), weight.double(), bias.double()), run(x.abs(), weight.abs(), bias.abs())
    return bool(((y - right).abs() <= 1e-5 * size).all())


numbers = st.integers(1, 3)
levels = st.sampled_from([1, 2, 3, 4, 5, 16])


@compiled
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 99),
    levels=levels,
    images=numbers,
    groups=numbers,
    ins=st.sampled_from([1, 3, 15, 16, 17, 32, 40]),
    outs=st.sampled_from([1, 3, 4, 5, 8, 17]),
    size=st.tuples(st.integers(1, 9), st.integers(1, 19)),
    kernel=st.tuples(numbers, numbers),
    stride=st.tuples(numbers, numbers),
    dilation=st.tuples(numbers, numbers),
    padding=st.one_of(st.integers(0, 3), st.tuples(*[st.integers(0, 3)] * 4), st.sampled_from(["same"])),
)
def test_a_convolution(seed, levels, images, groups, ins, outs, size, kernel, stride, dilation, padding):
    *held, weight = drawn(seed, levels, outs * groups, ins, *kernel)
    layer = CodebookConv2d(*held, stride, padding, dilation, groups)
    x = torch.randn(images, ins * groups, *size, generator=torch.Generator().manual_seed(seed))

    def by_floats(x, weight, bias):
        return F.conv2d(F.pad(x, layer.padding), weight, bias, stride, 0, dilation, groups)

    assert torch.equal(layer.values(), weight)
    try:
        right = by_floats(x, weight, held[-1])
    except RuntimeError:  # the kernel is larger than the picture
        with pytest.raises(PlanError, match=r"is too small for a kernel"):
            layer(x)
        return
    torch.testing.assert_close(layer.reference(x), right, rtol=1e-5, atol=1e-5)
    for layer.path in HERE:
        layer.threads = 3
        y = layer(x)
        layer.threads = 1
        assert close(y, by_floats, x, weight, held[-1]) and torch.equal(layer(x), y), layer.path


@compiled
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 99),
    levels=levels,
    ins=st.sampled_from([1, 15, 16, 17, 100, 128, 144, 512, 533, 1030]),
    outs=st.integers(1, 21),
    shape=st.sampled_from([(), (1,), (2,), (7,), (3, 2), (33,), (0,)]),
)
def test_a_linear_layer(seed, levels, ins, outs, shape):
    *held, weight = drawn(seed, levels, outs, ins)
    layer = CodebookLinear(*held)
    x = torch.randn(*shape, ins, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(layer.values(), weight) and torch.equal(layer.reference(x), F.linear(x, weight, held[-1]))
    for layer.path in HERE:
        layer.threads = 3
        y = layer(x)
        layer.threads = 1
        assert y.shape == (*shape, outs)
        assert close(y, F.linear, x, weight, held[-1]) and torch.equal(layer(x), y), layer.path


@pytest.mark.parametrize(("levels", "each"), [(2, 1), (4, 2), (5, 4), (16, 4), (17, 8)])
def test_what_it_holds(levels, each):
    """Codes of as many bits as levels need; the table, of 16 numbers at least; a scale and a bias for each output."""
    codes, table, *_ = drawn(0, levels, 40, 1024)
    layer = CodebookLinear(codes, table)
    assert layer.nbytes == 40 * 1024 * each // 8 + 4 * len(layer.table) + 4 * 40 * 2
    assert len(layer.table) == (16 if levels <= 16 else 256)


def test_larger_tables_run_in_pytorch():
    *held, weight = drawn(1, 200, 24, 16, 3, 3)
    x = torch.randn(2, 16, 5, 6)
    assert torch.equal(CodebookConv2d(*held)(x), F.conv2d(x, weight, held[-1]))


def test_a_table_that_is_not_finite_does_not_reach_beyond_its_weights():
    """Filters are filled up with the first number of the table, times 0."""
    codes = torch.ones(4, 17, dtype=torch.uint8)
    x = torch.ones(1, 17)
    assert CodebookLinear(codes, torch.tensor([float("inf"), 2.0]))(x).tolist() == [[34.0] * 4]


def test_gradients_reach_inputs():
    *held, weight = drawn(2, 16, 8, 40)
    x = torch.randn(3, 40, requires_grad=True)
    CodebookLinear(*held)(x).sum().backward()
    torch.testing.assert_close(x.grad, weight.sum(0).expand(3, 40))


def test_without_kernels_it_is_pytorch(monkeypatch, capsys):
    monkeypatch.setenv(build.SWITCH, "off")
    for remembered in (build.load, build.switch):
        remembered.cache_clear()
    *held, weight = drawn(3, 16, 8, 40)
    x = torch.randn(3, 40)
    assert torch.equal(CodebookLinear(*held)(x), F.linear(x, weight, held[-1]))
    assert capsys.readouterr().err == ""
    monkeypatch.undo()
    for remembered in (build.load, build.switch):
        remembered.cache_clear()


def test_a_layer_is_a_module():
    """Copied, stored and filled again; strided inputs; with one scale for all; left as it is by ``double``."""
    codes, table, _, bias, _ = drawn(4, 16, 9, 20, 3, 3)
    layer, other = CodebookConv2d(codes, table, torch.tensor(0.5), bias), CodebookConv2d(codes // 2, table)
    x = torch.randn(6, 5, 20, 2).permute(3, 2, 0, 1)
    y = layer(x)
    torch.testing.assert_close(y, F.conv2d(x, table[codes.long()] * 0.5, bias), rtol=1e-4, atol=1e-4)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x), y) and torch.equal(copy.deepcopy(layer).double()(x), y)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"codes": torch.zeros(4, 3, 3, dtype=torch.uint8)}, r"Codes \[4, 3, 3\] are none of a convolution"),
        ({"codes": torch.zeros(4, 2, 3, 3)}, r"Codes are uint8, below 2.*got torch.float32"),
        ({"codes": torch.full((4, 2, 3, 3), 2, dtype=torch.uint8)}, r"below 2, the size of the table; got .* up to 2"),
        ({"table": torch.ones(2, 2)}, r"A table has 1 to 256 numbers; got \[2, 2\]"),
        ({"table": torch.ones(2, dtype=torch.int64)}, r"table is float32 \[2\]; got torch.int64"),
        ({"scale": torch.ones(3)}, r"scale is float32 \[4\]; got torch.float32 \[3\]"),
        ({"groups": 3}, r"in 3 groups"),
    ],
)
def test_what_does_not_fit_is_refused(given, said):
    with pytest.raises(PlanError, match=said):
        CodebookConv2d(**{"codes": torch.zeros(4, 2, 3, 3, dtype=torch.uint8), "table": torch.ones(2)} | given)


def test_inputs_that_do_not_fit_are_refused():
    layer = CodebookLinear(torch.zeros(3, 7, dtype=torch.uint8), torch.ones(2))
    for run in (layer, layer.reference):
        with pytest.raises(PlanError, match=r"\[\.\.\., 7\]; got \[2, 6\]"):
            run(torch.ones(2, 6))
        with pytest.raises(PlanError, match=r"reads float32; got torch.float64"):
            run(torch.ones(2, 7).double())
    with pytest.raises(PlanError, match=r"none of a linear layer"):
        CodebookLinear(torch.zeros(3, 7, 1, dtype=torch.uint8), torch.ones(2))
