import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from penjing import zoo
from penjing.core.errors import RecipeError
from penjing.graph.surgery import cut
from penjing.graph.trace import plain, trace
from penjing.zoo.shufflenetv1 import OUTPUTS, ShuffleUnit, _divisible

PUBLISHED = [
    ("shufflenet_v1", 1.0, 1, 1_531_936, 143_078_976),
    ("shufflenet_v1", 1.0, 2, 1_733_848, 140_836_512),
    ("shufflenet_v1", 1.0, 3, 1_865_728, 137_460_672),
    ("shufflenet_v1", 1.0, 4, 1_968_344, 134_339_776),
    ("shufflenet_v1", 1.0, 8, 2_434_768, 138_365_952),
    ("shufflenet_v1", 0.5, 3, 718_324, 37_589_856),
    ("shufflenet_v1", 2.0, 3, 5_450_776, 524_045_184),
    ("shufflenet_v1_cifar", 1.0, 3, 914_338, 42_590_592),
]


@pytest.mark.parametrize(("name", "width", "groups", "params", "count"), PUBLISHED)
def test_parameters_and_macs_are_the_published_ones(name, width, groups, params, count, macs):
    with torch.device("meta"):
        model, x = getattr(zoo, name)(width=width, groups=groups), torch.empty(1, *zoo.picture(name))
        assert macs(model, x) == count
    assert sum(p.numel() for p in model.parameters()) == params


def test_names_are_those_of_the_released_code():
    with torch.device("meta"):
        names = {name.rpartition(".")[0] for name, _ in zoo.shufflenet_v1().named_parameters()}
    first = {"first_conv.0", "first_conv.1", "classifier.0"}
    layers = ("branch_main_1.0", "branch_main_1.1", "branch_main_1.3", "branch_main_1.4", "branch_main_2.0",
              "branch_main_2.1")  # fmt: skip
    assert names == first | {f"features.{i}.{layer}" for i in range(16) for layer in layers}


@pytest.mark.parametrize("stride", [1, 2])
def test_a_unit_is_what_the_released_code_computes(stride):
    unit, x = ShuffleUnit(12, 24 if stride == 2 else 12, stride, 3, first=False).eval(), torch.randn(2, 12, 6, 6)
    with torch.no_grad():
        y = unit.branch_main_1(x)
        n, c, h, w = y.shape
        y = unit.branch_main_2(y.reshape(n, c // 3, 3, h, w).permute(0, 2, 1, 3, 4).reshape(n, c, h, w))
        expected = F.relu(x + y) if stride == 1 else torch.cat([F.avg_pool2d(x, 3, 2, 1), F.relu(y)], 1)
        torch.testing.assert_close(unit(x), expected)


def test_the_trunk_and_the_insides_may_go_with_eight_groups():
    """A concatenation moves the borders of the groups, and a shuffle deals them out: yet no site is one unit."""
    model = plain(zoo.shufflenet_v1_cifar(width=0.5, groups=8))
    graph = trace(model, (torch.randn(2, 3, 16, 16),), proof=False)
    assert graph.share_free == 1 and not graph.notes
    inside = [site for site in graph.sites if site.name.endswith("branch_main_1.0")]
    assert [site.size for site in inside] == [6] * 4 + [12] * 8 + [24] * 4  # eight channels each
    trunk = [site for site in graph.sites if site not in inside]
    assert sum(site.size for site in trunk) == 10
    cut(model, graph, {site.name: range(site.size // 2) for site in graph.sites})
    narrow, wide = model.features[1].branch_main_1[0], model.features[5].branch_main_2[0]
    assert (narrow.in_channels, narrow.out_channels, narrow.groups) == (96, 24, 8)
    assert (wide.in_channels, wide.out_channels, wide.groups) == (48, 192, 8)


@given(st.floats(0.01, 4), st.sampled_from(sorted(OUTPUTS)))
def test_every_width_is_one_that_the_groups_divide(width, groups):
    stem, outputs = _divisible(24, width, groups), _divisible(OUTPUTS[groups], width, 4 * groups)
    assert stem % groups == outputs // 4 % groups == 0 and outputs % 4 == 0
    assert abs(outputs - OUTPUTS[groups] * width) <= max(2 * groups, 4 * groups - OUTPUTS[groups] * width)


@pytest.mark.parametrize("width", [0, -1.0, float("nan"), float("inf")])
def test_a_width_without_channels_is_refused(width):
    with pytest.raises(RecipeError, match="width multiplies the channels of every convolution, so it is above 0"):
        zoo.shufflenet_v1(width=width)


def test_another_number_of_groups_is_refused():
    with pytest.raises(RecipeError, match="published with 1, 2, 3, 4, 8 groups; got 5"):
        zoo.shufflenet_v1_cifar(groups=5)
