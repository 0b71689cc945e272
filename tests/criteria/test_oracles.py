"""Networks in which some channels are known to be useless or equal, and changes that no function can notice."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from penjing.graph.evidence import Evidence

from .nets import Chain, Mixed, batches, evidence, images, score, shaken

DEAD = slice(0, 8, 2)
DATA = batches(images(60), torch.arange(60).remainder(4), 25, 35)


def scored(model: nn.Module, criterion: str, name: str = "conv1") -> Tensor:
    return score(criterion, evidence(model, DATA), name)


def alive(norm: bool) -> nn.Module:
    model = shaken(Chain(norm))
    if norm:
        model.norm1.bias.data.fill_(0.5)
    return model


# ------------------------------------------------------------------------------------------- dead channels


@pytest.mark.parametrize("criterion", ["l1", "l2", "lamp", "fpgm", "apoz", "entropy", "hrank", "taylor"])
def test_channels_without_incoming_weights_rank_last(criterion: str) -> None:
    model = alive(norm=True)
    model.conv1.weight.data[DEAD] = 0
    model.norm1.bias.data[DEAD] = 0
    model.norm1.running_mean[DEAD] = 0
    found = scored(model, criterion)
    assert found[DEAD].max() < found[1::2].min()


def test_channels_scaled_to_nothing_rank_last_by_their_scale() -> None:
    model = alive(norm=True)
    model.conv1.weight.data[DEAD] = 0
    model.norm1.bias.data[DEAD] = 0
    # The scale knows nothing of the weights before it; training with a penalty on scales is what makes it tell.
    before = scored(model, "bn_gamma")
    assert before[DEAD].min() > 0
    model.norm1.weight.data[DEAD] = 0
    assert scored(model, "bn_gamma")[DEAD].max() < scored(model, "bn_gamma")[1::2].min()


def test_channels_that_nobody_listens_to_rank_last_by_taylor() -> None:
    model = alive(norm=True)
    before = scored(model, "taylor")
    model.conv2.weight.data[:, DEAD] = 0
    found = scored(model, "taylor")
    assert not found[DEAD].any() and found[1::2].min() > 0 and before[DEAD].min() > 0


@pytest.mark.parametrize("criterion", ["l1", "l2", "lamp", "fpgm", "bn_gamma", "apoz", "entropy", "hrank"])
def test_other_criteria_are_blind_to_whether_anybody_listens(criterion: str) -> None:
    model = alive(norm=True)
    before = scored(model, criterion)
    model.conv2.weight.data[:, DEAD] = 0
    assert torch.equal(scored(model, criterion), before)


# --------------------------------------------------------------------------------------- duplicate channels


@pytest.fixture(scope="module")
def twins() -> Evidence:
    model = alive(norm=True)
    with torch.no_grad():
        # Filters of one length, so that nothing but the distances can tell.
        model.conv1.weight /= model.conv1.weight.flatten(1).norm(dim=1)[:, None, None, None]
        model.conv1.weight[5] = model.conv1.weight[2]
    return evidence(model, DATA)


def test_fpgm_holds_equal_filters_for_replaceable(twins: Evidence) -> None:
    found = score("fpgm", twins, "conv1")
    assert torch.isclose(found[2], found[5])
    assert set(found.argsort()[:2].tolist()) == {2, 5}


@pytest.mark.parametrize("criterion", ["l1", "l2"])
def test_norms_prefer_neither_of_two_equal_filters(twins: Evidence, criterion: str) -> None:
    found = score(criterion, twins, "conv1")
    assert found[2] == found[5]
    assert criterion == "l2" or found.argsort()[:2].tolist() not in ([2, 5], [5, 2])


# -------------------------------------------------------------------------------------------------- gauges


def regauged(model: nn.Module) -> nn.Module:
    """Make some channels louder and others quieter, and let the reader undo it; powers of two are exact."""
    model = copy.deepcopy(model)
    loudness = torch.tensor([1, 2, 0.25, 8, 1, 0.5, 4, 0.125])
    with torch.no_grad():
        model.conv1.weight *= loudness[:, None, None, None]
        model.conv1.bias *= loudness
        model.conv2.weight /= loudness[:, None, None]
    return model


@pytest.mark.parametrize("criterion", ["apoz", "entropy", "taylor"])
def test_activations_and_gradients_do_not_depend_on_the_gauge(criterion: str) -> None:
    model = alive(norm=False)
    assert torch.equal(model(images(5)), regauged(model)(images(5)))
    assert torch.allclose(scored(model, criterion), scored(regauged(model), criterion), rtol=1e-6)


def test_ranks_do_not_depend_on_the_gauge_but_their_tie_break_does() -> None:
    model = alive(norm=False)
    before, after = scored(model, "hrank") * 60, scored(regauged(model), "hrank") * 60
    assert torch.equal(before.floor(), after.floor()) and not torch.equal(before, after)


@pytest.mark.parametrize("criterion", ["l1", "l2", "fpgm", "lamp"])
def test_norms_depend_on_the_gauge(criterion: str) -> None:
    model = alive(norm=False)
    before, after = scored(model, criterion), scored(regauged(model), criterion)
    assert before.argsort().tolist() != after.argsort().tolist()


def test_batch_norm_scales_depend_on_the_gauge() -> None:
    model = alive(norm=True)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.norm1.weight[3] *= 8
        other.norm1.bias[3] *= 8
        other.conv2.weight[:, 3] /= 8
    assert torch.allclose(model(images(5)), other(images(5)), atol=1e-6)
    assert scored(other, "bn_gamma")[3] == 8 * scored(model, "bn_gamma")[3]


@pytest.mark.parametrize(
    ("criterion", "same"),
    [
        ("l1", lambda a, b: a.argsort().tolist() == b.argsort().tolist()),
        ("l2", lambda a, b: a.argsort().tolist() == b.argsort().tolist()),
        ("lamp", lambda a, b: torch.allclose(a, b, rtol=1e-6)),
        ("deviation", lambda a, b: torch.allclose(a, b, rtol=1e-6)),
    ],
)
def test_rescaling_a_layer_changes_no_ranking_within_it(criterion: str, same: Callable[[Tensor, Tensor], bool]) -> None:
    model = alive(norm=True)
    other = copy.deepcopy(model)
    other.conv2.weight.data *= 3.7
    for name in ["conv2.weight"] + ["conv2"] * (criterion != "deviation"):
        before, after = scored(model, criterion, name), scored(other, criterion, name)
        assert same(before, after)
        assert criterion in ("lamp", "deviation") or torch.allclose(after, before * 3.7, rtol=1e-5)


def test_the_oracle_networks_have_what_the_tests_rely_on() -> None:
    with torch.no_grad():
        for norm in (True, False):
            model = alive(norm)
            fires = torch.relu(model.norm1(model.conv1(images(60)))).mean((0, 2, 3))
            assert fires.min() > 1e-3
    assert evidence(shaken(Mixed())).graph.share_free > 0.9
