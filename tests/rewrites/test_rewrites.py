"""What may be chosen, and that the choice is carried out and nothing else."""

import copy

import numpy as np
import pytest
import torch

from penjing.core.plan import Plan
from penjing.graph.draft import Draft
from penjing.graph.trace import plain, trace
from penjing.rewrites.channels import channels
from penjing.rewrites.weights import weights
from tiny import tiny


@pytest.fixture(scope="module")
def traced():
    model = plain(tiny())
    return model, trace(model, (torch.randn(2, 3, 8, 8),))


def test_channels_cut_to_what_the_draft_says(traced):
    model, graph = traced
    kept = {site.name: np.arange(0, site.size, 2) for site in channels().find(graph)}
    small = copy.deepcopy(model)
    channels().apply(small, graph, kept)
    draft = Draft(graph, Plan.of("channels", kept, graph.sites), lambda: small)
    assert sum(p.numel() for p in small.parameters()) == draft.parameters
    assert sum(int((p != 0).sum()) for p in small.parameters()) == draft.nonzero
    assert small.conv1.weight.shape == (16, 8, 3, 3) and small.bn1.num_features == 16
    again = trace(small, (torch.randn(2, 3, 8, 8),))
    assert [layer.macs for layer in again.layers] == [layer.macs for layer in draft.layers]


def test_weights_zero_exactly_what_is_not_kept(traced):
    model, graph = traced
    sites = weights().find(graph)
    assert {s.name for s in sites} == {"stem.weight", "conv1.weight", "conv2.weight", "linear.weight"}
    rng = np.random.default_rng(0)
    kept = {s.name: np.sort(rng.permutation(s.size)[: s.size // 5]) for s in sites}
    sparse = copy.deepcopy(model)
    weights().apply(sparse, graph, kept)
    parameters = dict(sparse.named_parameters())
    for name, original in model.named_parameters():
        now = parameters[name].flatten()
        if name in kept:
            mask = torch.zeros(original.numel(), dtype=torch.bool)
            mask[torch.from_numpy(kept[name])] = True
            assert torch.equal(now[mask], original.flatten()[mask]) and not now[~mask].any()
        else:
            assert torch.equal(now, original.flatten()), "biases and norms stay"
    draft = Draft(graph, Plan.of("weights", kept, sites), lambda: sparse)
    assert draft.nonzero == sum(int((p != 0).sum()) for p in sparse.parameters())
    assert draft.parameters == sum(p.numel() for p in model.parameters())
