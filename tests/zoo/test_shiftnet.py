import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from penjing import zoo
from penjing.core.errors import RecipeError
from penjing.graph.proof import prove
from penjing.graph.surgery import cut
from penjing.graph.trace import plain, trace
from penjing.zoo.shiftnet import ShiftBlock, shift

PUBLISHED = [
    ("shiftnet20_cifar", 1, 34_906, 5_948_032),
    ("shiftnet20_cifar", 3, 95_642, 16_433_792),
    ("shiftnet20_cifar", 6, 186_746, 32_162_432),
    ("shiftnet20_cifar", 9, 277_850, 47_891_072),
    ("shiftnet56_cifar", 1, 102_106, 15_385_216),
    ("shiftnet56_cifar", 3, 294_554, 44_745_344),
    ("shiftnet56_cifar", 6, 583_226, 88_785_536),
    ("shiftnet56_cifar", 9, 871_898, 132_825_728),
]


@pytest.mark.parametrize(("name", "expansion", "params", "count"), PUBLISHED)
def test_parameters_and_macs_are_the_published_ones(name, expansion, params, count, macs):
    with torch.device("meta"):
        model, x = getattr(zoo, name)(expansion=expansion), torch.empty(1, *zoo.picture(name))
        assert macs(model, x) == count
    assert sum(p.numel() for p in model.parameters()) == params


def test_every_convolution_is_one_by_one():
    with torch.device("meta"):
        convs = [m for m in zoo.shiftnet20_cifar().modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == 1 + 9 * 2 + 2 and {conv.kernel_size for conv in convs} == {(1, 1)}


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels", [5, 9, 20])
def test_a_shift_is_a_depthwise_convolution_with_one_one_in_each_kernel(channels, stride):
    x = torch.randn(2, channels, 7, 6)
    each, kernels = channels // 9, torch.zeros(channels, 1, 3, 3)
    taps = [tap for tap in range(9) for _ in range(each + (channels % 9 if tap == 4 else 0))]
    kernels.view(channels, 9)[range(channels), taps] = 1
    expected = F.conv2d(x, kernels, stride=stride, padding=1, groups=channels)
    assert torch.equal(shift(channels, stride)(x), expected)


@pytest.mark.parametrize(("stride", "kind"), [(1, torch.float32), (1, torch.bfloat16), (2, torch.float32)])
def test_in_training_a_shift_gives_the_same_and_the_same_gradients(stride, kind):
    x = torch.randn(2, 20, 7, 6).to(kind, memory_format=torch.channels_last)
    found = []
    for training in (False, True):
        module, mine = shift(20, stride).train(training), x.clone().requires_grad_()
        y = module(mine)
        y.backward(torch.arange(y.numel()).view_as(y).remainder(7).to(kind))
        found.append((y, mine.grad))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_the_stem_is_a_three_by_three_convolution():
    torch.manual_seed(0)
    model, x = zoo.shiftnet20_cifar(), torch.randn(2, 3, 8, 8)
    assert model.conv1.weight.numel() == 432
    kernel = model.conv1.weight.view(16, 3, 3, 3).permute(0, 3, 1, 2)  # offsets before colours
    with torch.no_grad():
        torch.testing.assert_close(model.conv1(model.shift1(torch.cat([x] * 9, 1))), F.conv2d(x, kernel, padding=1))


def test_a_block_sees_one_pixel_further_each_way():
    torch.manual_seed(0)
    block = ShiftBlock(4, 4, 1, 9).eval()
    x = torch.zeros(1, 4, 9, 9)
    with torch.no_grad():
        still = block(x)
        x[:, :, 4, 4] = 1
        reached = ((block(x) - still).abs().sum((0, 1)) > 0).nonzero()
    assert reached.amin(0).tolist() == [3, 3] and reached.amax(0).tolist() == [5, 5]


def test_each_channel_keeps_its_own_displacement_when_others_go():
    torch.manual_seed(0)
    model = nn.Sequential(ShiftBlock(3, 4, 2, 5), nn.Conv2d(4, 2, 1))  # 20 channels inside: two a tap, four still
    model(torch.randn(4, 3, 6, 6))
    model = plain(model)
    graph = trace(model, (torch.randn(2, 3, 6, 6),))
    stays = np.array([2, 3, 7, 8, 10, 11, 19])  # nothing of taps 0, 2, 6 and 7
    kept = {"0.conv1": stays}
    small = plain(model)
    cut(small, graph, kept)
    assert small[0].shift2.counts == [0, 2, 0, 1, 3, 0, 0, 0, 1]
    assert torch.equal(small[0].shift2.kernels(), model[0].shift2.kernels()[stays])
    assert prove(graph, model, small, kept).ok


def test_an_expansion_below_one_is_refused():
    with pytest.raises(RecipeError, match="expansion is how often wider a block is inside, 1 or more; got 0"):
        zoo.shiftnet20_cifar(expansion=0)
