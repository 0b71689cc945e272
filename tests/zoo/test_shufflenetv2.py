import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from penjing import zoo
from penjing.core.errors import RecipeError
from penjing.graph.proof import prove
from penjing.graph.surgery import cut
from penjing.graph.trace import plain, trace
from penjing.zoo.shufflenetv2 import HalvedUnit, ShuffleNetV2

PUBLISHED = [
    ("shufflenet_v2", 0.5, 1_366_792, 40_476_448),
    ("shufflenet_v2", 1.0, 2_278_604, 144_907_992),
    ("shufflenet_v2", 1.5, 3_503_624, 295_759_392),
    ("shufflenet_v2", 2.0, 7_393_996, 583_253_464),
    ("shufflenet_v2_cifar", 1.0, 1_263_854, 45_002_112),
]


@pytest.mark.parametrize(("name", "width", "params", "count"), PUBLISHED)
def test_parameters_and_macs_are_the_published_ones(name, width, params, count, macs):
    with torch.device("meta"):
        model, x = getattr(zoo, name)(width=width), torch.empty(1, *zoo.picture(name))
        assert macs(model, x) == count
    assert sum(p.numel() for p in model.parameters()) == params


def test_names_are_torchvisions():
    with torch.device("meta"):
        names = {name.rpartition(".")[0] for name, _ in zoo.shufflenet_v2().named_parameters()}
    expected = {"conv1.0", "conv1.1", "conv5.0", "conv5.1", "fc"}
    for stage, count in ((2, 4), (3, 8), (4, 4)):
        for i in range(count):
            expected |= {f"stage{stage}.{i}.branch2.{k}" for k in (0, 1, 3, 4, 5, 6)}
        expected |= {f"stage{stage}.0.branch1.{k}" for k in range(4)}
    assert names == expected


@pytest.mark.parametrize("stride", [1, 2])
def test_a_unit_is_what_torchvision_computes(stride):
    unit, x = HalvedUnit(8, 8, stride).eval(), torch.randn(2, 8, 6, 6)
    with torch.no_grad():
        left, right = x.chunk(2, 1) if stride == 1 else (unit.branch1(x), x)
        y = torch.cat([left, unit.branch2(right)], 1)
        n, c, h, w = y.shape
        torch.testing.assert_close(unit(x), y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))


def test_every_channel_of_the_trunk_goes_alone_and_halves_become_uneven():
    torch.manual_seed(0)
    units = (HalvedUnit(3, 24, 2), HalvedUnit(24, 24, 1), HalvedUnit(24, 24, 1))
    model = nn.Sequential(*units, nn.Conv2d(24, 2, 1))
    model(torch.randn(4, 3, 8, 8))
    model = plain(model)
    graph = trace(model, (torch.randn(2, 3, 8, 8),))
    assert graph.share_free == 1
    trunk = [site for site in graph.sites if ".branch1." in site.name or ".branch2.5" in site.name]
    assert sum(site.size for site in trunk) == 4 * 12 and {site.width for site in trunk} == {1}
    kept = {trunk[0].name: np.arange(1)}
    small = plain(model)
    cut(small, graph, kept)
    assert small[1].halves != [12, 12] and small[1].halves[0] != small[1].halves[1]
    assert small[0].shuffle.channels == sum(small[1].halves) == len(small[0].shuffle.index)
    assert prove(graph, model, small, kept).ok


def test_weights_without_the_order_of_channels_load(tmp_path):
    torch.manual_seed(0)
    theirs, ours = zoo.shufflenet_v2_cifar(width=0.5), zoo.shufflenet_v2_cifar(width=0.5)
    orders = {name: value for name, value in theirs.state_dict().items() if name.endswith("shuffle.index")}
    assert len(orders) == 16
    given = {name: value for name, value in theirs.state_dict().items() if name not in orders}
    save_file(given, tmp_path / "w.safetensors")
    zoo.load_weights(ours, tmp_path / "w.safetensors")
    assert all(torch.equal(value, ours.state_dict()[name]) for name, value in theirs.state_dict().items())
    save_file({name: value for name, value in given.items() if name != "fc.bias"}, tmp_path / "less.safetensors")
    with pytest.raises(RecipeError, match=r"lacks 1 tensor \(fc\.bias\)"):
        zoo.load_weights(ours, tmp_path / "less.safetensors")


def test_a_width_that_is_not_published_is_refused():
    with pytest.raises(RecipeError, match=r"published in the widths 0\.5, 1, 1\.5, 2; got 0\.75"):
        zoo.shufflenet_v2(width=0.75)
    assert isinstance(zoo.shufflenet_v2_cifar(width=1), ShuffleNetV2)
