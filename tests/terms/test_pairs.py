import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from penjing import zoo
from penjing.core.errors import TrainError
from penjing.core.registry import build
from penjing.terms.attention_transfer import attention_transfer
from penjing.terms.pairs import Ears, Pair, ends, middle, one_size, pairs_of

from .nets import Other, Plain, attached, batch


def maps(*sizes, channels=2):
    return {f"{place}{size}": torch.zeros(1, channels, size, size) for size in sizes for place in ("start", "end")}


@pytest.mark.parametrize(
    ("own", "theirs", "wanted"),
    [
        ((32, 16, 8), (32, 16, 8, 4), ("end32=end32", "end16=end16", "end8=end8")),
        ((16, 8, 1), (32, 16, 8, 1), ("end16=end16", "end8=end8")),
        ((30, 14, 6), (32, 16, 8), ("end30=end32", "end14=end16", "end6=end8")),
        ((14, 6), (32, 16, 8), ("end14=end16", "end6=end8")),
        ((1,), (8,), ()),
    ],
)
def test_pairs_ends_of_stages_by_size_or_else_from_the_end(own, theirs, wanted):
    assert ends(maps(*own), maps(*theirs, channels=3)) == pairs_of(wanted)


def test_the_middle_pair():
    assert middle(maps(32, 16, 8), maps(32, 16, 8)) == (Pair("end16", "end16"),)
    assert middle(maps(16, 8), maps(16, 8)) == (Pair("end8", "end8"),)
    assert middle(maps(1), maps(1)) == ()


@pytest.mark.parametrize(
    ("name", "size", "wanted"),
    [
        ("resnet20", 32, {"layer1": 32, "layer2": 16, "layer3": 8}),
        ("resnet50", 64, {"bn1": 32, "layer1": 16, "layer2": 8, "layer3": 4, "layer4": 2}),
        ("vgg16_bn", 32, {"features.5": 32, "features.12": 16, "features.22": 8, "features.32": 4, "features.42": 2}),
        ("mobilenet_v2_cifar", 32, {"features.3": 32, "features.6": 16, "features.13": 8, "features": 4}),
    ],
)
def test_the_ends_of_stages_are_whole_blocks(name, size, wanted):
    """Not what the next block computes before it goes on to a smaller size, as in bottlenecks."""
    model = getattr(zoo, name)().eval()
    ears = Ears(model)
    ears.listen(ears.modules)
    with torch.no_grad():
        model(torch.zeros(1, 3, size, size))
    found = ends(ears.heard, ears.heard)
    assert {pair.own: ears.heard[pair.own].shape[-1] for pair in found} == wanted


def test_what_makes_a_weight_is_no_stage():
    model = nn.Sequential(parametrizations.weight_norm(nn.Conv2d(3, 4, 3, padding=1)), nn.ReLU())
    ears = Ears(model)
    assert list(ears.modules) == ["0", "1"]


@pytest.mark.parametrize(
    "layers", [("one", "two=features.5"), {"one": "one", "two": "features.5"}, (" one", "two = features.5")]
)
def test_layers_are_written_in_any_of_three_ways(layers):
    assert pairs_of(layers) == (Pair("one", "one"), Pair("two", "features.5"))


def test_a_recipe_may_write_each_form():
    for layers in (["one=features.1"], {"one": "features.1"}, "one=features.1"):
        term = build("term", {"attention_transfer": {"layers": layers}})
        assert pairs_of(term.layers) == (Pair("one", "features.1"),)


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        (("tow=features.1",), r"the model has no layer 'tow'. Did you mean 'two'"),
        (("one",), r"the teacher has no layer 'one'"),
        (("one=classifier",), r"one returns \[4, 4, 8, 8\] in the model, and classifier \[4, 3\] in the teacher; name"),
    ],
)
def test_a_layer_that_does_not_fit_is_named(layers, words):
    model, x = Plain(), batch()
    with pytest.raises(TrainError, match=words):
        attached(attention_transfer(layers=layers), model, Other())[0](x, model(x), None)


def test_a_layer_that_is_not_run_is_named():
    model, teacher, x = Plain(), Other(), batch()
    model.spare = nn.Conv2d(3, 3, 1)
    with pytest.raises(TrainError, match=r"spare returns no tensor in the model, or is not run; name another layer"):
        attached(attention_transfer(layers=("spare=features",)), model, teacher)[0](x, model(x), None)


def test_networks_without_maps_are_refused():
    model, teacher = (nn.Sequential(nn.Flatten(), nn.Linear(192, 3)) for _ in range(2))
    with pytest.raises(TrainError, match=r"attention_transfer finds no layers to compare.*layers: \["):
        attached(attention_transfer(), model, teacher)[0](batch(), model(batch()), None)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_the_larger_map_is_averaged(dims):
    own, theirs = torch.rand(2, 3, *[4] * dims), torch.rand(2, 5, *[4] * (dims - 1), 2)
    small, same = one_size(own, theirs)
    assert same is theirs
    by_hand = own.unflatten(-1, (2, 2)).mean(-1)
    torch.testing.assert_close(small, by_hand)
    assert one_size(theirs, own)[1].shape == small.shape
