"""What must hold of a cut network, as questions that answer with a list of troubles; used by tests and benchmarks."""

# A module call is typed as Any by torch.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree

from nets.grammar import random_net
from nets.hostile import HOSTILE
from penjing.core.units import Kept
from penjing.graph import form
from penjing.graph.graph import Graph
from penjing.graph.proof import Certificate, difference, prove
from penjing.graph.surgery import cut
from penjing.graph.trace import plain, trace

BATCHES = (1, 2, 5)


@dataclass(eq=False)
class Network:
    """A network with its graph, and what it does before any cut."""

    name: str
    model: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    graph: Graph = field(init=False)

    def __post_init__(self) -> None:
        self.graph = trace(self.model, self.args, self.kwargs)

    def small(self, kept: Mapping[str, Kept]) -> nn.Module:
        model = copy.deepcopy(self.model)
        cut(model, self.graph, kept)
        return model

    @cached_property
    def batches(self) -> dict[int, tuple[Any, list[Tensor]]]:
        """The inputs and outputs at every batch size that the original accepts."""
        found = {}
        for n in BATCHES:
            example = resized((self.args, self.kwargs), self.graph.batch, n)
            try:
                found[n] = example, outputs(self.model, example)
            except Exception:
                continue
        return found

    @cached_property
    def trained(self) -> set[str]:
        """The parameters that get a gradient."""
        return set(gradients(copy.deepcopy(self.model), (self.args, self.kwargs)))

    @property
    def share_named(self) -> float:
        """The share of units that are free or stay for a constant in the user's code."""
        fixed = sum(note.units for note in self.graph.notes if note.fixed_by_code)
        return (self.graph.free + fixed) / self.graph.total


@cache
def hostile(name: str) -> Network:
    case = HOSTILE[name]
    return Network(name, plain(case.build()), *case.inputs())


def random_network(seed: int) -> Network:
    model, args = random_net(seed)
    return Network(f"random {seed}", model, args, {})


# ------------------------------------------------------------------------------------------------------- plans


def half(graph: Graph, seed: int) -> dict[str, Kept]:
    """Keep half of the units of every site, drawn at random."""
    rng = np.random.default_rng(seed)
    return {s.name: np.sort(rng.choice(s.size, -(-s.size // 2), replace=False)) for s in graph.sites}


def single(graph: Graph, seed: int) -> dict[str, Kept]:
    """Keep one unit of every site, drawn at random."""
    rng = np.random.default_rng(seed)
    return {s.name: rng.choice(s.size, 1) for s in graph.sites}


# ---------------------------------------------------------------------------------------------------- questions


def troubles(net: Network, kept: Mapping[str, Kept], thorough: bool = True) -> list[str]:
    """Ask everything of one cut, or, less thoroughly, all but training and storing; return what is wrong."""
    before = {name: tensor.clone() for name, tensor in net.model.state_dict().items()}
    modes = [module.training for module in net.model.modules()]
    small = net.small(kept)
    certificate = prove(net.graph, net.model, small, kept)
    if not certificate.ok:
        return [f"cut is not zeroed: {told(certificate)}"]
    found = [*whole_batches(net, small), *untrue(small), *eager(net, kept, small)]
    found += [*reloading(net, kept, small), *training(net, small)] if thorough else []
    same = all(torch.equal(tensor, before[name]) for name, tensor in net.model.state_dict().items())
    if not same or modes != [module.training for module in net.model.modules()]:
        found.append("the original was changed")
    return found


def told(certificate: Certificate) -> str:
    return f"{certificate.trouble or certificate.difference}"


def whole_batches(net: Network, small: nn.Module) -> list[str]:
    """Other batch sizes run, give outputs of the original's shape, and treat samples as a batch of two does."""
    found = []
    for n, (example, theirs) in net.batches.items():
        try:
            ours = outputs(small, example)
        except Exception as error:
            found.append(f"batch {n} fails: {error}")
            continue
        if [y.shape for y in ours] != [y.shape for y in theirs]:
            found.append(f"batch {n} gives {[tuple(y.shape) for y in ours]}")
        elif n > 2 and rows_differ(theirs) < 1e-4 <= rows_differ(ours):
            found.append(f"batch {n} mixes samples")
    return found


def rows_differ(batch: list[Tensor]) -> float:
    """Compare sample 0 with sample 2 of a batch that repeats two samples."""
    return max((difference([y[:1]], [y[2:3]]) for y in batch if y.dim() and len(y) > 2), default=0.0)


def training(net: Network, small: nn.Module) -> list[str]:
    """Train mode runs backward, and reaches the parameters it reached before."""
    found = gradients(small, (net.args, net.kwargs))
    if found.keys() != net.trained:
        return [f"gradients of {sorted(found.keys() ^ net.trained)} came or went"]
    return [f"the gradient of {name} is not finite" for name, grad in found.items() if not grad.isfinite().all()]


def reloading(net: Network, kept: Mapping[str, Kept], small: nn.Module) -> list[str]:
    """The state loads into another model cut by the same plan, which then gives the same outputs."""
    other = net.small(kept)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_state_dict(small.state_dict())
    example = (net.args, net.kwargs)
    refilled = form.refill(copy.deepcopy(net.model), form.tensors(small), form.counts(small))
    found = []
    for which, model in (("state does not survive saving and loading", other), ("form is not all of it", refilled)):
        same = zip(outputs(small, example), outputs(model, example), strict=True)
        found += [] if all(torch.equal(a, b) for a, b in same) else [f"the {which}"]
    return found


def untrue(model: nn.Module) -> list[str]:
    """Descriptive attributes of standard modules are those of their tensors."""
    found = []
    for name, m in model.named_modules():
        claims: list[tuple[str, Any, Any]] = []
        if isinstance(m, nn.modules.conv._ConvNd) and m.weight.dim() == len(m.kernel_size) + 2:
            sides = (
                (m.in_channels, m.out_channels // m.groups)
                if m.transposed
                else (m.out_channels, m.in_channels // m.groups)
            )
            claims += [("channels", sides, tuple(m.weight.shape[:2]))]
            claims += [("groups", (m.in_channels % m.groups, m.out_channels % m.groups), (0, 0))]
            claims += [("bias", m.out_channels, len(m.bias))] if m.bias is not None else []
        elif isinstance(m, nn.Linear):
            claims += [("features", (m.out_features, m.in_features), tuple(m.weight.shape))]
        elif isinstance(m, nn.modules.batchnorm._NormBase):
            vectors = [t for t in (m.weight, m.bias, m.running_mean, m.running_var) if t is not None]
            claims += [("num_features", m.num_features, len(t)) for t in vectors]
        elif isinstance(m, nn.GroupNorm) and m.weight is not None:
            claims += [("num_channels", m.num_channels, len(m.weight)), ("groups", m.num_channels % m.num_groups, 0)]
        elif isinstance(m, nn.PReLU):
            claims += [("num_parameters", m.num_parameters, len(m.weight))]
        elif isinstance(m, nn.Embedding):
            claims += [("embedding", (m.num_embeddings, m.embedding_dim), tuple(m.weight.shape))]
        found += [f"{name} claims {what} {said}, has {has}" for what, said, has in claims if said != has]
    return found


def blind(net: Network, kept: Mapping[str, Kept]) -> nn.Module | None:
    """Return the module itself, with the weights that read removed channels at zero.

    That is the same as cutting where every reader is a weight of full width: no reductions over channels, no kernels
    computed on the fly, no channels counted inside groups. Of other networks, None.
    """
    graph = net.graph
    readers = [layer for layer in graph.layers if (layer.in_units >= 0).any()]
    if len(readers) != len(graph.reads) or not all(layer.weight and layer.groups == 1 for layer in readers):
        return None
    zeroed = copy.deepcopy(net.model)
    tensors = dict(zeroed.named_parameters())
    with torch.no_grad():
        for site in graph.sites:
            gone = np.setdiff1d(np.arange(site.size), kept.get(site.name, np.arange(site.size)))
            for slot in site.slots_with("in"):
                index = torch.from_numpy(slot.index[np.isin(slot.unit, gone)])
                tensors[slot.tensor].index_fill_(slot.axis, index, 0)
    return zeroed


def eager(net: Network, kept: Mapping[str, Kept], small: nn.Module) -> list[str]:
    """An oracle without our interpreter: what the ``blind`` module computes."""
    zeroed = blind(net, kept)
    if zeroed is None:
        return []
    gap = difference(outputs(zeroed, (net.args, net.kwargs)), outputs(small, (net.args, net.kwargs)))
    return [] if gap <= 1e-4 else [f"differs from the eagerly zeroed model by {gap:.1e}"]


# ------------------------------------------------------------------------------------------------------- helpers


def resized(example: Any, batch: int, n: int) -> Any:
    """Return the example with ``n`` samples, its own over and over."""

    def fit(leaf: Any) -> Any:
        if isinstance(leaf, Tensor) and leaf.dim() and len(leaf) == batch:
            return leaf[torch.arange(n) % batch]
        return leaf

    return _pytree.tree_map(fit, example)


@torch.no_grad()
def outputs(model: nn.Module, example: Any) -> list[Tensor]:
    result = model(*copy.deepcopy(example[0]), **copy.deepcopy(example[1]))
    return [leaf for leaf in _pytree.tree_leaves(result) if isinstance(leaf, Tensor)]


def gradients(model: nn.Module, example: Any) -> dict[str, Tensor]:
    """Run backward in train mode; return the gradients by name."""
    model.train()
    result = model(*copy.deepcopy(example[0]), **copy.deepcopy(example[1]))
    leaves = [leaf for leaf in _pytree.tree_leaves(result) if isinstance(leaf, Tensor)]
    torch.autograd.backward([leaf.square().sum() for leaf in leaves])
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
