"""The blocks of light architectures: their counts, what they choose of trained weights, and fitting them to data."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from factors.layers import apart
from penjing.core.errors import PlanError
from penjing.core.registry import build
from penjing.exporting.onnx import export_onnx
from penjing.exporting.verify import check_parity
from penjing.factors.chain import merge
from penjing.factors.depthwise_separable import depthwise_separable
from penjing.factors.fire import fire
from penjing.factors.fitted import Patches, dense, fit
from penjing.factors.grouped_shuffle import grouped_shuffle
from penjing.factors.layer import Shift, read
from penjing.factors.shift import shift


@pytest.mark.parametrize(("outputs", "fewer"), [(64, 7.9), (1024, 8.9)])
def test_depthwise_separable_leaves_one_in_t_and_one_in_nine_of_the_macs(outputs, fewer):
    spec = read(nn.Conv2d(48, outputs, 3, padding=1))
    share = depthwise_separable().cost(spec, (1,), (14, 14)).macs / spec.macs((14, 14))
    assert share == pytest.approx(1 / outputs + 1 / 9) and 1 / share == pytest.approx(fewer, abs=0.05)


@pytest.mark.parametrize(
    ("form", "rank", "macs"),
    [
        ("shift", 1, 64 * 96),
        ("shift", 3, 3 * 64 * 96),
        ("fire", 16, 64 * 16 + 16 * 48 + 16 * 48 * 9),
        ({"fire": {"wide": 0.25}}, 8, 64 * 8 + 8 * 72 + 8 * 24 * 9),
        ({"grouped_shuffle": {"groups": 2}}, 4, 16 * 32 * 9 + 16 // 2 * 96),
        ({"grouped_shuffle": {"groups": 4}}, 2, 32 * 16 * 9 + 32 // 4 * 96),
    ],
    ids=str,
)
def test_the_counts_are_those_of_the_formulas(form, rank, macs):
    """Of 64 to 96 channels by 3 x 3, a position."""
    conv = nn.Conv2d(64, 96, 3, padding=1, bias=False)
    made = build("factorization", form)
    cost = made.cost(read(conv), (rank,), (10, 10))
    assert cost.per_position == macs and cost.params == macs
    assert cost.params == sum(p.numel() for p in made.split(conv, rank).parameters())


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    counts=st.lists(st.integers(0, 2), min_size=6, max_size=6).filter(any),
    stride=st.tuples(st.integers(1, 2), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)) | st.just("same"),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    mode=st.sampled_from(["zeros", "circular"]),
)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_a_shift_is_the_depthwise_convolution_with_a_one_at_each_tap(counts, stride, padding, dilation, mode):
    stride = (1, 1) if padding == "same" else stride
    one, channels = Shift(counts, (2, 3), stride, padding, dilation, mode), sum(counts)
    conv = nn.Conv2d(channels, channels, (2, 3), stride, padding, dilation, channels, False, mode)
    with torch.no_grad():
        conv.weight.copy_(one.kernels())
    x = torch.randn(2, channels, 9, 8)
    assert torch.equal(one(x), conv(x)) and not list(one.parameters()) and read(one).macs((9, 8)) == 0


@pytest.mark.parametrize("counts", [[4, 0, 0], [-1, 2, 0, 3], [0, 0, 0, 0]])
def test_a_shift_of_other_counts_is_refused(counts):
    with pytest.raises(PlanError, match=r"A shift by a kernel of 2 x 2 has 4 counts of channels, one a tap; got \["):
        Shift(counts, (2, 2))


def test_each_channel_goes_by_its_strongest_taps():
    conv = nn.Conv2d(5, 6, 3, padding=1, bias=False)
    with torch.no_grad():
        conv.weight.mul_(0.01)
        for channel, tap in enumerate((8, 0, 4, 0, 2)):
            conv.weight.view(6, 5, 9)[:, channel, tap] = 1.0 + channel
    chain = shift().split(conv, 1)
    assert chain.order.index.tolist() == [1, 3, 4, 2, 0] and chain.shift.counts == [2, 0, 1, 0, 1, 0, 0, 0, 1]
    assert apart(conv, chain, torch.randn(2, 5, 7, 7)) < 0.2


def test_fire_keeps_the_kernels_of_the_outputs_that_look_around():
    conv = nn.Conv2d(6, 4, 3, padding=1)
    with torch.no_grad():
        conv.weight[[0, 3], :, :1] = conv.weight[[0, 3], :, 2:] = 0
        conv.weight[[0, 3], :, 1, ::2] = 0
    chain = fire().split(conv.double(), 6)
    assert chain.order.index.tolist() == [0, 2, 3, 1]
    assert apart(conv, chain, torch.randn(2, 6, 5, 5)) < 1e-9
    assert apart(merge(chain), chain, torch.randn(2, 6, 5, 5)) < 1e-9


def test_channels_are_shuffled_as_shufflenet_does():
    chain = grouped_shuffle(4).split(nn.Conv2d(16, 32, 1), 2)
    x = torch.arange(32.0).view(1, 32, 1, 1)
    transposed = x.view(1, 4, 4, 2, 1, 1).transpose(1, 2).reshape(1, 32, 1, 1)
    assert torch.equal(chain.shuffle(x), transposed) and chain.mix.groups == 4


@pytest.mark.parametrize(
    ("form", "conv", "why"),
    [
        ("shift", nn.Conv2d(4, 8, 1), "displaces nothing"),
        ("shift", nn.Conv2d(4, 8, 3, groups=2), "is grouped"),
        ("fire", nn.Conv2d(4, 8, 2), "no middle tap"),
        ("fire", nn.Conv2d(4, 1, 3, padding=1), "has one output"),
        ("fire", nn.Conv2d(4, 8, 3), "would see more"),
        ("fire", nn.Linear(4, 8), "one tap"),
        ({"grouped_shuffle": {"groups": 3}}, nn.Conv2d(4, 6, 3), "not both multiples of 3"),
    ],
)
def test_layers_that_cannot_be_written_so_are_refused(form, conv, why):
    with pytest.raises(PlanError, match=rf"stem cannot be factored by .*{why}"):
        build("factorization", form).split(conv, 1, "stem")


@pytest.mark.parametrize("form", [{"fire": {"wide": 1.0}}, {"grouped_shuffle": {"groups": 1}}])
def test_options_out_of_range_are_refused(form):
    with pytest.raises(PlanError, match=r"^(fire|grouped_shuffle): "):
        build("factorization", form)


FITTED = {"depthwise_separable": 1, "shift": 1, "fire": 4, "grouped_shuffle": 2, "svd": 3}


def patches_of(x, conv):
    rows = F.unfold(x, conv.kernel_size, padding=conv.padding).transpose(1, 2).flatten(0, 1).double()
    mean = rows.mean(0)
    return Patches(mean, rows.T @ rows / len(rows) - torch.outer(mean, mean))


@pytest.mark.parametrize("form", FITTED)
def test_a_fit_misses_less_than_weights_alone_and_tells_how_much(form):
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 12, 3, padding=1)
    x = F.relu(F.avg_pool2d(torch.randn(64, 8, 10, 10), 3, 1) + 0.3 * torch.randn(64, 8, 1, 1))
    patches, whole = patches_of(x, conv), dense(conv)
    chain = build("factorization", form).split(conv, FITTED[form])
    before = patches.errors(whole - dense(merge(chain))).sum()
    product = fit(chain, whole, patches)
    error = patches.errors(whole - product).sum()
    with torch.no_grad():
        gap = (conv(x) - chain(x)).transpose(0, 1).flatten(1)
        assert float((gap - gap.mean(1, keepdim=True)).square().sum(0).mean()) == pytest.approx(float(error), rel=1e-3)
    assert error < 0.9 * before
    again = fit(chain, whole, patches)
    assert patches.errors(whole - again).sum() <= error * (1 + 1e-9)


def test_the_last_stage_is_fitted_as_least_squares_do():
    """Of a shift the only stage with weights, so that the fit is one regression of the responses."""
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 5, 3, padding=1, bias=False)
    x = F.relu(torch.randn(32, 6, 8, 8) + 0.5)
    rows, patches = F.unfold(x, 3, padding=1).transpose(1, 2).flatten(0, 1).double(), patches_of(x, conv)
    chain = shift().split(conv, 1)
    fit(chain, dense(conv), patches, sweeps=1, steps=64)
    read_ = chain.shift(chain.order(x)).transpose(0, 1).flatten(1).T.double()
    wanted = rows @ dense(conv).T
    best = torch.linalg.lstsq(read_ - read_.mean(0), wanted - wanted.mean(0)).solution.T
    assert torch.allclose(chain.pointwise.weight.flatten(1).double(), best, atol=1e-5)


def test_the_file_of_a_shift_computes_what_it_does(tmp_path):
    """With taps that no channel goes by; the other blocks' files are the contracts' to try."""
    conv = nn.Conv2d(4, 12, 3, stride=2, padding=1)
    chain, x = build("factorization", "shift").split(conv, 1).eval(), torch.randn(2, 4, 9, 8)
    assert 0 in chain.shift.counts
    file = export_onnx(chain, (x,), {}, tmp_path / "chain.onnx", quick=True)
    assert check_parity(chain, file, [(x,)]).relative <= 1e-5
