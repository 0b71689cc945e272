"""The proof of a cut: the cut model equals the original whose layers are kept from reading what was removed.

The original runs as its recorded program, with the removed channels set to zero where a convolution or linear layer
reads them; the cut model runs as the user's own module. They share neither code nor weights' shapes, so agreement
says that the labels, the surgery and the user's forward all mean the same network.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from penjing.core.modes import modes_kept
from penjing.core.random import stream
from penjing.core.sites import Site
from penjing.core.units import Kept, is_gone
from penjing.graph.graph import Graph
from penjing.graph.program import lines_of, shell
from penjing.graph.surgery import cut

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
"""Largest relative difference that passes, by precision."""


STEADY = "the same model gives the same output"
"""The name of the certificate of no cut at all."""


@dataclass(frozen=True)
class Certificate:
    """What a proof found: the largest relative difference over all outputs, and the trouble if there was any.

    ``lines`` are the places in the user's code an exception passed through, as ``file.py:12``.
    """

    name: str
    difference: float
    tolerance: float
    trouble: str = ""
    lines: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Tell whether the proof holds."""
        return not self.trouble and self.difference <= self.tolerance

    @property
    def verdict(self) -> str:
        """What the cut model does, in words that follow its name."""
        if self.trouble:
            return f"fails with {self.trouble}"
        return f"differs from the zeroed one by {self.difference:.1e}, {self.tolerance:.0e} is allowed"


class Zeroed(torch.fx.Interpreter):
    """Runs the program with the channels of removed units read as zero, and removed blocks' branches added as zero."""

    def __init__(self, graph: Graph, gone: NDArray[np.bool_], without: Collection[str] = ()) -> None:
        super().__init__(graph.program.module)
        self.silent = dict(branch for name in without for branch in graph.blocks[name].branches)
        self.masks: dict[str, tuple[int, int, Tensor]] = {}
        for read in graph.reads:
            stays = ~is_gone(read.units, gone)
            if not stays.all():
                self.masks[read.node] = (read.operand, read.dim, torch.from_numpy(stays))

    def run_node(self, n: torch.fx.Node) -> Any:
        """Run one node, its masked operand first."""
        if n.name in self.silent:
            return self._added(n, self.silent[n.name])
        if n.name not in self.masks:
            return super().run_node(n)
        operand, dim, stays = self.masks[n.name]
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        flat = list(args)
        many = isinstance(flat[-1], list | tuple) and isinstance(flat[0], str)  # einsum takes a list of tensors
        tensors = list(flat[-1]) if many else flat
        x = tensors[operand]
        shape = [1] * x.dim()
        shape[dim] = -1
        # Not a product with zero: a channel that goes may be infinite.
        tensors[operand] = x.masked_fill(~stays.view(shape).to(x.device), 0)
        call = (flat[0], tensors) if many else tuple(tensors)
        result: Any = n.target(*call, **kwargs)  # type: ignore[operator]
        return result

    def _added(self, n: torch.fx.Node, branch: int) -> Any:
        """Run an addition whose branch is zero."""
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        zero = [torch.zeros_like(x) if i == branch else x for i, x in enumerate(args)]
        return n.target(*zero, **kwargs)  # type: ignore[operator]


def _outputs(value: Any) -> list[Tensor]:
    return [leaf for leaf in torch.utils._pytree.tree_leaves(value) if isinstance(leaf, Tensor)]


def zeroed_outputs(
    graph: Graph, model: nn.Module, gone: NDArray[np.bool_], example: tuple[Any, Any], without: Collection[str] = ()
) -> list[Tensor]:
    """Run the original ``model`` through its program with what is removed read as zero."""
    state: dict[str, Tensor] = dict(model.named_parameters())
    # A forward may count its calls in a buffer; the original stays untouched.
    state |= {name: buffer.clone() for name, buffer in model.named_buffers()}
    return _outputs(Zeroed(graph, gone, without).run(*graph.program.arguments(state, example)))


def difference(a: list[Tensor], b: list[Tensor]) -> float:
    """Return the largest difference relative to the largest magnitude, over all outputs; inf where shapes differ."""
    if [x.shape for x in a] != [x.shape for x in b]:
        return float("inf")
    worst = 0.0
    for x, y in zip(a, b, strict=True):
        if x.numel() == 0:
            continue
        x, y = x.double(), y.double()
        scale = float(x.abs().max().clamp(min=1e-12))
        gap = float((x - y).abs().max()) / scale
        worst = max(worst, gap if np.isfinite(gap) else float("inf"))
    return worst


def worse(a: Certificate, b: Certificate) -> Certificate:
    """Return the certificate that says less for the network."""
    return max(a, b, key=lambda one: (not one.ok, one.difference / one.tolerance))


def random_example(graph: Graph, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """Return an input of the traced shapes: fresh normal numbers for floating tensors, the traced ones for others."""
    generator = torch.Generator().manual_seed(seed)

    def fresh(leaf: Any) -> Any:
        if isinstance(leaf, Tensor) and leaf.is_floating_point():
            return torch.randn(leaf.shape, generator=generator).to(device=leaf.device, dtype=dtype)
        return copy.deepcopy(leaf)

    example: tuple[Any, Any] = torch.utils._pytree.tree_map(fresh, graph.example)
    return example


def _mixed_example(graph: Graph, seed: int, dtype: torch.dtype) -> tuple[Any, Any]:
    """Return the traced input with its numbers mixed up, for networks that normal numbers drive out of range."""
    generator = torch.Generator().manual_seed(seed)

    def mixed(leaf: Any) -> Any:
        if isinstance(leaf, Tensor) and leaf.is_floating_point():
            order = torch.randperm(leaf.numel(), generator=generator).to(leaf.device)
            return leaf.detach().flatten()[order].view(leaf.shape).to(dtype)
        return copy.deepcopy(leaf)

    example: tuple[Any, Any] = torch.utils._pytree.tree_map(mixed, graph.example)
    return example


def prove(
    graph: Graph, model: nn.Module, cut_model: nn.Module, kept: Mapping[str, Kept], without: Collection[str] = ()
) -> Certificate:
    """Compare the cut model with the zeroed original, in eval mode on random input.

    ``kept`` are the units of channel sites, ``without`` names the blocks that were taken out. Runs in float32,
    tolerance 1e-5; where rounding exceeds that, float64 and 1e-10 decide. A float64 model is proved in float64.
    """
    gone = graph.gone(kept)
    return compare(
        "cut equals zeroed", graph, model, cut_model, lambda m, given: zeroed_outputs(graph, m, gone, given, without)
    )


@torch.no_grad()
def compare(
    name: str,
    graph: Graph,
    model: nn.Module,
    other: nn.Module,
    outputs: Callable[[nn.Module, tuple[Any, Any]], list[Tensor]],
) -> Certificate:
    """Compare ``outputs`` of a model with what another computes, in eval mode on random input, as ``prove`` does."""
    own = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    certificate = Certificate(name, float("inf"), TOLERANCE[torch.float32])
    for dtype in (torch.float64,) if own is torch.float64 else (torch.float32, torch.float64):
        certificate = _compared(name, graph, _in_precision(model, dtype), _in_precision(other, dtype), outputs, dtype)
        if certificate.ok or certificate.trouble or certificate.difference > 1e-2:
            break
    return certificate


def _compared(
    name: str,
    graph: Graph,
    model: nn.Module,
    other: nn.Module,
    outputs: Callable[[nn.Module, tuple[Any, Any]], list[Tensor]],
    dtype: torch.dtype,
) -> Certificate:
    tolerance = TOLERANCE[dtype]
    try:
        for make in (random_example, _mixed_example):
            theirs = outputs(model, make(graph, 0, dtype))
            ours = eval_outputs(other, make(graph, 0, dtype))
            if all(bool(x.isfinite().all()) for x in theirs):
                break
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        return Certificate(name, float("inf"), tolerance, f"{type(error).__name__}: {text}", tuple(lines_of(error)))
    return Certificate(name, difference(theirs, ours), tolerance)


def _in_precision(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return the model, or a copy of it where its floating tensors have another precision."""
    tensors = (*model.parameters(), *model.buffers())
    if all(t.dtype is dtype for t in tensors if t.is_floating_point()):
        return model
    return copy.deepcopy(model).to(dtype)


def eval_outputs(model: nn.Module, example: tuple[Any, Any]) -> list[Tensor]:
    """Run a model in eval mode, and leave it in the modes it was in."""
    with modes_kept(model):
        return _outputs(model.eval()(*example[0], **example[1]))


def try_out(model: nn.Module, graph: Graph) -> dict[str, Certificate]:
    """Cut a third of every site and prove it; return the certificates of the sites that fail.

    All sites are tried together; where that fails, halves of them, so that a few bad sites cost few trials. Where a cut
    sets numbers that modules hold, every second site goes first, since parts that shrink alike would hide a wrong one.
    Where not even the whole model equals itself, all sites fail by a certificate called ``STEADY``.
    """
    kept = {site.name: two_thirds(site) for site in graph.sites if site.size > 1}
    everyone = list(kept)
    groups = [everyone[1::2], everyone[::2]] if graph.counts else [everyone]
    return sifted(groups, lambda names: holds(model, graph, {name: kept[name] for name in names}))


def sifted(groups: Sequence[Sequence[str]], test: Callable[[Sequence[str]], Certificate]) -> dict[str, Certificate]:
    """Find the names that fail a test beside the others, taking halves of a group that fails.

    Where not even no name at all passes, all fail by a certificate called ``STEADY``.
    """
    failures: dict[str, Certificate] = {}
    good: list[str] = []
    waiting = [group for group in groups if group]
    most = max(map(len, waiting), default=0)
    while waiting:
        names = waiting.pop()
        certificate = test([*good, *names])
        if certificate.ok:
            good.extend(names)
        elif len(names) == most and not (steady := replace(test([]), name=STEADY)).ok:
            return dict.fromkeys((name for group in groups for name in group), steady)
        elif len(names) == 1:
            failures[names[0]] = certificate
        else:
            waiting += [names[len(names) // 2 :], names[: len(names) // 2]]
    return failures


def two_thirds(site: Site) -> Kept:
    """Return two thirds of a site's units, drawn by its name.

    Were they the same at every site, a confusion between two sites could not show.
    """
    removed = max(1, site.size // 3)
    return np.sort(stream(0, f"graph/proof/{site.name}").permutation(site.size)[removed:])


def holds(model: nn.Module, graph: Graph, kept: Mapping[str, Kept]) -> Certificate:
    """Cut a copy of the model and prove it."""
    smaller = shell(model)
    try:
        cut(smaller, graph, kept)
    except Exception as error:
        return Certificate("cut", float("inf"), 0.0, f"{type(error).__name__}: {error}", tuple(lines_of(error)))
    return prove(graph, model, smaller, kept)
