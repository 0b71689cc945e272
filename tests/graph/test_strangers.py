"""Networks as public packages write them: what is free, and that a cut sets the numbers their modules hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from nets import strangers
from nets.hostile.case import randomise
from penjing.core.errors import PlanError
from penjing.graph import form
from penjing.graph.proof import prove
from penjing.graph.surgery import cut
from penjing.graph.trace import plain, trace

X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def halved(net: nn.Module, every: int = 2):
    """Keep every second unit of every site; return the network, the smaller one and the graph."""
    net = randomise(net, 1).eval()
    graph = trace(net, (X,))
    small = plain(net)
    kept = {site.name: np.arange(0, site.size, every) for site in graph.sites}
    cut(small, graph, kept)
    certificate = prove(graph, net, small, kept)
    assert certificate.ok, certificate
    return net, small, graph


@pytest.mark.parametrize("make", [strangers.MixedKernels, strangers.StoredHalves, strangers.StoredSlices])
def test_numbers_that_a_module_holds_are_no_obstacle(make):
    _, _, graph = halved(make())
    assert graph.share_free == 1 and not graph.notes


def test_a_list_is_set_entry_by_entry_and_the_users_own_stays():
    net, small, _ = halved(strangers.MixedKernels())
    assert net.splits == [8, 6, 6] and small.splits == [4, 3, 3]
    assert [part[0].out_channels for part in small.parts] == [4, 3, 3]


def test_a_width_that_is_halved_stays_twice_its_half():
    _, small, _ = halved(strangers.StoredHalves())
    assert small.width == 2 * small.block[0].in_channels < 24


def test_a_number_counts_the_same_wherever_it_cuts():
    _, small, graph = halved(strangers.StoredSlices())
    assert small.first < 9 and len(graph.counts) >= 2
    with torch.no_grad():
        assert small(X).isfinite().all()


def test_a_number_that_only_looks_like_a_width_is_left_alone():
    net, small, graph = halved(strangers.BesideIt())
    assert graph.share_free == 1 and small.shown == net.shown == 10 and not graph.counts


def test_a_module_with_two_names_is_cut():
    _, small, graph = halved(strangers.TwiceNamed())
    assert graph.share_free == 1
    assert small.norm.num_features == small.second.num_channels == small.first.out_channels < 12
    assert small.alias["again"][0] is small.first


def test_channels_that_a_convolution_runs_along_stay():
    graph = trace(strangers.ChannelAttention().eval(), (X,))
    assert [site.name for site in graph.sites] == ["stem.0"]
    assert {note.why for note in graph.notes} == {
        "lies along space in a convolution",
        "is one channel that is merged with its positions",
    }


@pytest.mark.parametrize("make", [strangers.Pyramid, strangers.Mask])
def test_dense_networks_are_free_inside(make):
    _, _, graph = halved(make())
    assert graph.share_free == 1


def test_numbers_travel_with_the_form():
    net, small, _ = halved(strangers.MixedKernels())
    sizes = form.counts(small)
    assert sizes[""] == {"splits": [4, 3, 3]}
    again = form.refill(plain(net), form.tensors(small), sizes)
    with torch.no_grad():
        assert torch.equal(again(X), small(X))


@pytest.mark.parametrize("wrong", [[4, 3], 10, [4, 3, "3"], None])
def test_numbers_of_another_kind_are_refused(wrong):
    net, small, _ = halved(strangers.MixedKernels())
    with pytest.raises(PlanError, match="The network has no count 'splits' of its root"):
        form.refill(plain(net), form.tensors(small), {"": {"splits": wrong}})
