"""Operators without weights: which run on their own, and how many elements they move, whole and cut."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from penjing.core.plan import Plan
from penjing.graph.draft import Draft
from penjing.graph.trace import trace


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm, self.pool = nn.BatchNorm2d(8), nn.MaxPool2d(3, 2, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm(self.a(x)))
        x = self.pool(x + F.hardtanh(self.b(x), 0.0, 6.0))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


def test_batch_norm_and_activations_are_folded_and_the_rest_is_counted() -> None:
    net = Net().eval()
    graph = trace(net, (torch.randn(2, 3, 8, 8),))
    whole = Draft(graph, Plan(), lambda: net).passes
    told = [(p.name, p.kind, p.in_elements, p.out_elements, p.operations) for p in whole]
    assert told == [
        ("add", "elementwise", 2 * 8 * 64, 8 * 64, 8 * 64),
        ("pool", "pool", 8 * 64, 8 * 16, 9 * 8 * 16),
        ("adaptive_avg_pool2d", "pool", 8 * 16, 8, 8 * 16),
    ]


def test_a_cut_shrinks_what_passes_move() -> None:
    net = Net().eval()
    graph = trace(net, (torch.randn(2, 3, 8, 8),))
    plan = Plan.of("channels", {"a": np.arange(3)}, graph.sites)
    add, pool, mean = Draft(graph, plan, lambda: net).passes
    assert (add.in_elements, add.out_elements) == (2 * 3 * 64, 3 * 64)
    assert (pool.in_elements, mean.out_elements) == (3 * 64, 3)


def test_zeros_of_a_plan_show_in_a_layers_density() -> None:
    net = Net().eval()
    graph = trace(net, (torch.randn(2, 3, 8, 8),))
    sites = [site for site in _weights().find(graph) if site.name == "b.weight"]
    plan = Plan.of("weights", {"b.weight": np.arange(144)}, sites)
    densities = {layer.name: layer.density for layer in Draft(graph, plan, lambda: net).layers}
    assert densities == {"a": 1.0, "b": 0.25, "head": 1.0}


def _weights():
    from penjing.rewrites.weights import weights

    return weights()
