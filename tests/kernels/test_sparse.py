"""Convolutions by the weights that are not zero give what torch's own give; on every path, on any threads."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.core.errors import PlanError
from penjing.kernels import build, sparse
from penjing.kernels.sparse import SparseConv2d

LIBRARY = build.load("sparse", sparse.DECLARATIONS)
HERE = build.PATHS[: 1 + LIBRARY.path()] if LIBRARY else ()

numbers, places = st.integers(1, 3), st.integers(0, 3)


def drawn(shape, density, seed):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=random) * (torch.rand(shape, generator=random) < density)


@pytest.mark.skipif(LIBRARY is None, reason="the kernels cannot be compiled here, or are off")
@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 99),
    groups=numbers,
    ins=st.integers(1, 9),
    outs=st.integers(1, 9),
    size=st.tuples(st.integers(1, 12), st.sampled_from([1, 2, 5, 14, 15, 20, 30])),
    kernel=st.tuples(numbers, st.integers(1, 4)),
    stride=st.tuples(numbers, numbers),
    padding=st.tuples(places, places, places, places),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    density=st.sampled_from([0.0, 0.03, 0.3, 1.0]),
    images=st.integers(1, 2),
)
def test_random_layers(seed, groups, ins, outs, size, kernel, stride, padding, dilation, density, images):
    left, right, top, bottom = padding
    reach = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True))
    height, width = max(size[0], reach[0] - top - bottom), max(size[1], reach[1] - left - right)
    weight = drawn((outs * groups, ins, *kernel), density, seed)
    bias, x = drawn(outs * groups, 1.0, seed), drawn((images, ins * groups, height, width), 1.0, seed)
    right_ = F.conv2d(F.pad(x, padding), weight, bias, stride, 0, dilation, groups)
    for path in HERE:
        found = []
        for threads in (1, 3):
            layer = SparseConv2d(weight, bias, stride, padding, dilation, groups, threads=threads, path=path)
            found.append(layer(x))
            torch.testing.assert_close(found[-1], right_, rtol=1e-5, atol=1e-4)
        assert torch.equal(*found)
    torch.testing.assert_close(layer.reference(x), right_, rtol=1e-5, atol=1e-4)


def test_it_holds_what_is_not_zero():
    weight = drawn((32, 16, 3, 3), 0.1, 0)
    layer = SparseConv2d(weight, padding=1)
    assert torch.equal(layer.dense(), weight) and len(layer.values) == int((weight != 0).sum())
    assert layer.density == pytest.approx(float((weight != 0).float().mean()))
    assert layer.nbytes == 8 * len(layer.values)
    same = SparseConv2d(torch.zeros_like(weight), padding="same")
    same.register_buffer("values", layer.values)
    same.register_buffer("places", layer.places)
    x = drawn((1, 16, 8, 8), 1.0, 1)
    assert torch.equal(same(x), layer(x))
    assert torch.equal(layer.half().float()(x).isfinite().all(), torch.tensor(True))


def test_it_runs_what_was_loaded_last_and_passes_gradients_on():
    weight, x = drawn((16, 8, 3, 3), 0.2, 0), drawn((1, 8, 6, 6), 1.0, 1)
    layer, other = SparseConv2d(weight, padding=1), SparseConv2d(2 * weight, padding=1)
    assert not torch.equal(layer(x), other(x))
    layer.load_state_dict(other.state_dict())
    assert torch.equal(layer(x), other(x))
    doubled = {name: held.double() if held.is_floating_point() else held for name, held in other.state_dict().items()}
    layer.load_state_dict(doubled, assign=True)
    assert torch.equal(layer(x), other(x))
    x.requires_grad_()
    layer(x).sum().backward()
    slope = torch.autograd.grad(F.conv2d(x, 2 * weight, padding=1).sum(), x)[0]
    torch.testing.assert_close(x.grad, slope, rtol=1e-5, atol=1e-4)
    layer.places[0] = weight.numel()  # would be read behind the planes
    with pytest.raises(PlanError, match=r"outside of its 1152 weights"):
        layer(x.detach()[:, :, 1:])
    with pytest.raises(PlanError, match=r"places of a packed layer is torch.int32; got torch.float32"):
        layer.load_state_dict(other.state_dict() | {"places": other.places.float()}, assign=True)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SparseConv2d(torch.zeros(4, 3, 3)), r"none of a convolution"),
        (lambda: SparseConv2d(torch.full((4, 3, 3, 3), torch.nan)), "NaN"),
        (lambda: SparseConv2d(torch.ones(4, 3, 3, 3), torch.ones(3)), r"bias is float32 \[4\]"),
        (lambda: SparseConv2d(torch.ones(4, 3, 3, 3))(torch.ones(1, 2, 8, 8)), r"reads \[n, 3, h, w\]"),
        (lambda: SparseConv2d(torch.ones(4, 3, 3, 3))(torch.ones(1, 3, 8, 8).double()), "got torch.float64"),
        (lambda: SparseConv2d(torch.ones(4, 3, 3, 3))(torch.ones(1, 3, 2, 8)), "too small"),
    ],
)
def test_what_does_not_fit_together(make, words):
    with pytest.raises(PlanError, match=words):
        make()
