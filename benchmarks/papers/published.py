"""What the papers report, each figure with where we have it from.

``drop`` is in points of accuracy from the paper's own baseline; ``removed`` in % of the cost that the row bounds.
"paper" and "code" were read there; "quoted" in another paper's table, which is named; "given" came with the outline
of the method, whose paper was not at hand; "recalled" was not read again.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A published figure of a method in one of the tables."""

    table: str
    method: str
    removed: float
    drop: float
    source: str


PUBLISHED = (
    Published("vgg16", "ddpg", 28.08, 0.75, "combined pruning, given"),
    Published("vgg16", "sigma", 99.05, 6.11, "combined pruning, given"),
    Published("vgg16", "combined", 83.33, 1.55, "combined pruning, given"),
    Published("vgg16", "gal", 77.46, 6.86, "quoted in combined pruning, given"),
    Published("vgg16", "l1", 64.08, 7.13, "quoted in combined pruning, given"),
    Published("vgg16", "entropy", 43.00, 2.06, "quoted in combined pruning, given"),
    Published("vgg16", "gal", 77.6, 1.93, "GAL-0.05, a single linear layer as head, recalled"),
    Published("vgg16", "l1", 64.0, -0.15, "PFEC, a small head, recalled"),
    Published("vgg16", "abcpruner", 88.68, -0.06, "ABCPruner, a single linear layer as head, code"),
    Published("cifar100", "ddpg", 70.1, 1.98, "combined pruning, ResNet-56, 71.50 to 69.52, given"),
    Published("cifar100", "weight_sum", 80.0, 19.54, "combined pruning, ResNet-56, 71.50 to 51.96, given"),
    Published("cifar100", "apoz", 80.0, 12.61, "combined pruning, ResNet-56, 71.50 to 58.89, given"),
    Published("cifar10", "l1", 27.6, -0.02, "PFEC, ResNet-56, recalled"),
    Published("cifar10", "amc", 50.0, 0.90, "AMC, ResNet-56, quoted in DepGraph"),
    Published("cifar10", "abcpruner", 54.13, 0.03, "ABCPruner, ResNet-56, code; baseline recalled"),
    Published("cifar10", "gal", 37.6, 0.28, "GAL-0.6, ResNet-56, recalled"),
    Published("cifar10", "gal", 60.2, 2.90, "GAL-0.8, ResNet-56, recalled"),
    Published("cifar10", "hrank", 50.0, 0.09, "HRank, ResNet-56, code"),
    Published("cifar10", "fpgm", 52.6, 0.33, "FPGM, ResNet-56, quoted in DepGraph"),
    Published("cifar10", "bn_gamma", 52.8, 0.24, "ResNet-56 in DepGraph's harness, its code"),
)


@dataclass(frozen=True)
class Peer:
    """What another project reached in one shot on ResNet-56, as measured on 2,000 test pictures, one seed."""

    kind: str
    removed: float
    accuracy: float
    what: str


PEERS = (
    Peer("weights", 80.0, 49.95, "torch.nn.utils.prune 2.13, global magnitude, nothing else"),
    Peer("weights", 80.0, 86.65, "the same, batch norm estimated anew"),
    Peer("weights", 90.0, 14.95, "torch.nn.utils.prune 2.13, global magnitude, nothing else"),
    Peer("weights", 90.0, 69.00, "the same, batch norm estimated anew"),
    Peer("channels", 50.2, 84.30, "Torch-Pruning 1.6.1, residual stream whole by hand, FPGM, global, batch norm anew"),
    Peer("channels", 49.7, 83.05, "Torch-Pruning 1.6.1 so, L2, global"),
    Peer("channels", 49.8, 83.20, "Torch-Pruning 1.6.1 so, L1, local"),
)
"""Without leaving the residual stream whole by hand, Torch-Pruning fails on this network."""
