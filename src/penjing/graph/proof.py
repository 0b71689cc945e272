"""The proof of a cut: the cut model equals the original whose layers are kept from reading what was removed.

The original runs as its exported program, with the removed channels set to zero where a convolution or linear layer
reads them; the cut model runs as the user's own module. They share neither code nor weights' shapes, so agreement
says that the labels, the surgery and the user's forward all mean the same network.
"""

from __future__ import annotations

import copy
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export.graph_signature import InputKind, OutputKind

from penjing.core.types import Kept
from penjing.graph.graph import Graph
from penjing.graph.surgery import cut

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
"""Largest relative difference that passes, by precision."""


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


class Zeroed(torch.fx.Interpreter):
    """Runs the exported program with the channels of removed units read as zero."""

    def __init__(self, graph: Graph, gone: np.ndarray[Any, np.dtype[np.bool_]]) -> None:
        super().__init__(graph.program.graph_module)
        self.masks: dict[str, tuple[int, int, Tensor]] = {}
        for read in graph.reads:
            stays = ~((read.units >= 0) & gone[np.maximum(read.units, 0)])
            if not stays.all():
                self.masks[read.node] = (read.operand, read.dim, torch.from_numpy(stays))

    def run_node(self, n: torch.fx.Node) -> Any:
        """Run one node, its masked operand first."""
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
        tensors[operand] = x * stays.view(shape).to(device=x.device, dtype=x.dtype)
        call = (flat[0], tensors) if many else tuple(tensors)
        result: Any = n.target(*call, **kwargs)  # type: ignore[operator]
        return result


def _outputs(value: Any) -> list[Tensor]:
    return [leaf for leaf in torch.utils._pytree.tree_leaves(value) if isinstance(leaf, Tensor)]


def zeroed_outputs(
    graph: Graph, model: nn.Module, gone: np.ndarray[Any, np.dtype[np.bool_]], example: tuple[Any, Any]
) -> list[Tensor]:
    """Run the original ``model`` through its exported program with the removed channels read as zero."""
    signature = graph.program.graph_signature
    state = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    users = iter(torch.utils._pytree.tree_leaves(example))
    flat: list[Any] = []
    for spec in signature.input_specs:
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER):
            flat.append(state[str(spec.target)])
        elif spec.kind == InputKind.USER_INPUT:
            flat.append(next(users))
        else:
            flat.append(graph.program.constants[str(spec.target)])
    outputs = Zeroed(graph, gone).run(*flat)
    kinds = [spec.kind for spec in signature.output_specs]
    return _outputs([o for o, kind in zip(outputs, kinds, strict=True) if kind == OutputKind.USER_OUTPUT])


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


def random_example(graph: Graph, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """Return an input of the traced shapes: fresh normal numbers for floating tensors, the traced ones for others."""
    generator = torch.Generator().manual_seed(seed)

    def fresh(leaf: Any) -> Any:
        if isinstance(leaf, Tensor) and leaf.is_floating_point():
            return torch.randn(leaf.shape, generator=generator).to(device=leaf.device, dtype=dtype)
        return leaf

    example: tuple[Any, Any] = torch.utils._pytree.tree_map(fresh, graph.example)
    return example


@torch.no_grad()
def prove(graph: Graph, model: nn.Module, cut_model: nn.Module, kept: Mapping[str, Kept]) -> Certificate:
    """Compare the cut model with the zeroed original, in eval mode on random input.

    Runs in float32, tolerance 1e-5; where rounding exceeds that, float64 and 1e-10 decide.
    """
    certificate = Certificate("cut equals zeroed", float("inf"), TOLERANCE[torch.float32])
    for dtype in (torch.float32, torch.float64):
        certificate = _compare(graph, model, cut_model, kept, dtype)
        if certificate.ok or certificate.trouble or certificate.difference > 1e-2:
            break
    return certificate


def _compare(
    graph: Graph, model: nn.Module, cut_model: nn.Module, kept: Mapping[str, Kept], dtype: torch.dtype
) -> Certificate:
    name, tolerance = "cut equals zeroed", TOLERANCE[dtype]
    if dtype is torch.float64:
        model, cut_model = copy.deepcopy(model).double(), copy.deepcopy(cut_model).double()
    modes = {m: m.training for m in cut_model.modules()}
    example = random_example(graph, dtype=dtype)
    try:
        cut_model.eval()
        ours = _outputs(cut_model(*copy.deepcopy(example[0]), **copy.deepcopy(example[1])))
        theirs = zeroed_outputs(graph, model, graph.gone(kept), copy.deepcopy(example))
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = tuple(f"{Path(f.filename).name}:{f.lineno}" for f in frames)
        text = " ".join(str(error).split())[:200]
        return Certificate(name, float("inf"), tolerance, f"{type(error).__name__}: {text}", lines)
    finally:
        for module, mode in modes.items():
            module.training = mode
    return Certificate(name, difference(theirs, ours), tolerance)


def try_out(model: nn.Module, graph: Graph) -> dict[str, list[str]]:
    """Cut a third of every site and prove it; return the sites that fail, each with the lines of its exception."""
    kept = {site.name: _two_thirds(site.size) for site in graph.sites if site.size > 1}
    if _holds(model, graph, kept).ok:
        return {}
    failures: dict[str, list[str]] = {}
    together: dict[str, Kept] = {}
    for name, units in kept.items():
        certificate = _holds(model, graph, {**together, name: units})
        if certificate.ok:
            together[name] = units
        else:
            failures[name] = list(certificate.lines)
    return failures


def _two_thirds(size: int) -> Kept:
    removed = max(1, size // 3)
    return np.arange(size)[np.r_[0 : size // 2 - removed // 2, size // 2 - removed // 2 + removed : size]]


def _holds(model: nn.Module, graph: Graph, kept: Mapping[str, Kept]) -> Certificate:
    smaller = copy.deepcopy(model)
    cut(smaller, graph, kept)
    return prove(graph, model, smaller, kept)
