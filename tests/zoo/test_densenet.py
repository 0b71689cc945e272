import pytest
import torch
import torch.nn.functional as F

from penjing import zoo
from penjing.core.errors import RecipeError
from penjing.zoo.densenet import DenseLayer, Transition

PUBLISHED = [("densenet121", 7_978_856, 2_834_161_664), ("densenet_cifar", 769_162, 287_929_692)]


@pytest.mark.parametrize(("name", "params", "count"), PUBLISHED)
def test_parameters_and_macs_are_the_published_ones(name, params, count, macs):
    with torch.device("meta"):
        model, x = getattr(zoo, name)(), torch.empty(1, *zoo.picture(name))
        assert macs(model, x) == count
    assert sum(p.numel() for p in model.parameters()) == params


def test_names_are_torchvisions():
    with torch.device("meta"):
        names = {name.removesuffix(".weight") for name, _ in zoo.densenet121().named_parameters() if "bias" not in name}
    expected = {"features.conv0", "features.norm0", "features.norm5", "classifier"}
    for block, count in enumerate((6, 12, 24, 16), 1):
        for i in range(1, count + 1):
            parts = ("norm1", "conv1", "norm2", "conv2")
            expected |= {f"features.denseblock{block}.denselayer{i}.{part}" for part in parts}
        expected |= {f"features.transition{block}.{part}" for part in ("norm", "conv")} if block < 4 else set()
    assert names == expected


def test_a_layer_appends_and_a_transition_halves():
    layer, transition, x = DenseLayer(6, 4).eval(), Transition(10).eval(), torch.randn(2, 6, 4, 4)
    with torch.no_grad():
        y = layer(x)
        inner = layer.conv1(torch.relu(layer.norm1(x)))
        assert inner.shape[1] == 16 and torch.equal(y[:, :6], x)
        assert torch.equal(y[:, 6:], layer.conv2(torch.relu(layer.norm2(inner))))
        assert torch.equal(transition(y), F.avg_pool2d(transition.conv(torch.relu(transition.norm(y))), 2))
        assert transition(y).shape == (2, 5, 2, 2)


def test_depths_and_growths_that_there_are_not_are_refused():
    with torch.device("meta"):
        for depth in (22, 40):
            model = zoo.densenet_cifar(depth=depth, growth=4)
            convs = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
            assert len(convs) + 1 == depth
    for depth in (4, 99):
        with pytest.raises(RecipeError, match=rf"depth of 10, 16, 22 and so on, by 6; got {depth}"):
            zoo.densenet_cifar(depth=depth)
    with pytest.raises(RecipeError, match="growth is how many channels a dense layer adds, 1 or more; got 0"):
        zoo.densenet_cifar(growth=0)
