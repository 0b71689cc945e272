import pytest
import torch
import torch.nn.functional as F

from penjing import zoo
from penjing.zoo.xceptionnet import SeparableConv, XceptionBlock

PUBLISHED = [("xception", 22_855_952, 8_357_403_496), ("xception_cifar", 20_827_442, 374_950_144)]


@pytest.mark.parametrize(("name", "params", "count"), PUBLISHED)
def test_parameters_and_macs_are_the_published_ones(name, params, count, macs):
    with torch.device("meta"):
        model, x = getattr(zoo, name)(), torch.empty(1, *zoo.picture(name))
        assert macs(model, x) == count
    assert sum(p.numel() for p in model.parameters()) == params


def test_names_are_those_of_the_weights_in_use():
    with torch.device("meta"):
        names = {name.removesuffix(".weight") for name, _ in zoo.xception().named_parameters() if "bias" not in name}
    expected = {"conv1", "bn1", "conv2", "bn2", "bn3", "bn4", "fc"}
    expected |= {f"conv{i}.{part}" for i in (3, 4) for part in ("conv1", "pointwise")}
    for block in range(1, 13):
        first, count = (0 if block == 1 else 1), (2 if block in (1, 2, 3, 12) else 3)
        for at in range(first, first + 3 * count, 3):
            expected |= {
                f"block{block}.rep.{at}.conv1",
                f"block{block}.rep.{at}.pointwise",
                f"block{block}.rep.{at + 1}",
            }
        expected |= {f"block{block}.skip", f"block{block}.skipbn"} if count == 2 else set()
    assert names == expected


def test_no_activation_lies_between_the_parts_of_a_separable_convolution():
    conv, x = SeparableConv(3, 5), torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        alone = torch.cat([F.conv2d(x[:, i : i + 1], conv.conv1.weight[i : i + 1], padding=1) for i in range(3)], 1)
        torch.testing.assert_close(conv(x), F.conv2d(alone, conv.pointwise.weight))


def test_a_block_activates_before_each_convolution_and_not_behind_the_sum():
    x = torch.randn(2, 4, 6, 6)
    same, wider = XceptionBlock((4, 4, 4, 4)).eval(), XceptionBlock((4, 6, 6), relu=False).eval()
    with torch.no_grad():
        y = x
        for i in (1, 4, 7):
            y = same.rep[i + 1](same.rep[i](torch.relu(y)))
        torch.testing.assert_close(same(x), x + y)
        y = wider.rep[1](wider.rep[0](x))
        y = F.max_pool2d(wider.rep[4](wider.rep[3](torch.relu(y))), 3, 2, 1)
        torch.testing.assert_close(wider(x), y + wider.skipbn(wider.skip(x)))
    assert bool((same(x) < 0).any())
