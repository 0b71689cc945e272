"""Scores of ranks that do not depend on how a scale is split between two stages.

Multiplying one filter by a number and what reads it by the inverse changes nothing that the chain computes; a one-sided
norm changes all the same. Depthwise stages pass a rank through, and belong to the boundary that they lie on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from penjing.core.errors import PlanError
from penjing.factors.layer import LayerSpec, read

SWEEPS = 500
"""How often the boundaries of a chain are balanced in turn at most."""


@dataclass(frozen=True)
class Boundary:
    """The ranks between a stage that writes them and one that reads them, with the depthwise stages they pass."""

    writer: nn.Module
    through: tuple[nn.Module, ...]
    reader: nn.Module


def boundaries(chain: Sequence[nn.Module]) -> list[Boundary]:
    """Return where the ranks of a chain lie, in the order of the chain.

    Raises: PlanError for a stage that is no convolution or linear layer, or that picks ranks.
    """
    found: list[Boundary] = []
    writer: nn.Module | None = None
    through: list[nn.Module] = []
    last = len(chain) - 1
    for position, stage in enumerate(chain):
        spec = read(stage, f"Stage {position}")
        if spec.kind == "pick":
            if writer is not None and position < last:
                raise PlanError(f"Stage {position} picks ranks; score the stages before and after it on their own.")
            continue
        if writer is not None and passes(spec):
            through.append(stage)
            continue
        if writer is not None:
            found.append(Boundary(writer, tuple(through), stage))
        writer, through = stage, []
    return found


def passes(spec: LayerSpec) -> bool:
    """Tell whether a stage is depthwise with one filter a channel."""
    return spec.depthwise and spec.out_channels == spec.in_channels


def scores(boundary: Boundary) -> Tensor:
    """Return, for each rank, the product of the norms of what writes it, passes it and reads it.

    In the balanced split of a matrix this is the singular value. Shapes: [channels], float64.
    """
    norms = _norms(boundary)
    return torch.stack(norms).prod(0)


@torch.no_grad()
def balance(boundary: Boundary) -> None:
    """Give each rank one norm on all sides, in place; what the chain computes stays, its inner biases scaled along."""
    norms = torch.stack(_norms(boundary))
    mean = norms.clamp_min(1e-300).log().mean(0).exp()
    _scale(boundary, torch.where((norms > 0).all(0), mean / norms.clamp_min(1e-300), 1.0))


@torch.no_grad()
def settle(chain: Sequence[nn.Module]) -> None:
    """Bring a chain, in place, to the one gauge in which all its ranks are balanced; what it computes stays.

    A stage in the middle reads one set of ranks and writes another, so that they are balanced in turn until nothing
    moves: the squared norms have one least sum. The largest entry of what writes a rank is positive.

    Raises: as ``boundaries``.
    """
    inner, kinds = boundaries(chain), [_weight(stage).dtype for stage in chain]
    for stage in chain:
        stage.double()  # so that the rounds do not add up rounding
    for _ in range(SWEEPS):
        before = [norm for boundary in inner for norm in _norms(boundary)]
        for boundary in inner:
            balance(boundary)
        after = [norm for boundary in inner for norm in _norms(boundary)]
        if all(torch.allclose(a, b, rtol=1e-12, atol=0.0) for a, b in zip(before, after, strict=True)):
            break
    for boundary in inner:
        rows = _weight(boundary.writer).flatten(1)
        signs = torch.where(rows.gather(1, rows.abs().argmax(1, keepdim=True))[:, 0] < 0, -1.0, 1.0).double()
        _scale(boundary, torch.stack([signs, *(torch.ones_like(signs) for _ in boundary.through), signs]))
    for stage, dtype in zip(chain, kinds, strict=True):
        stage.to(dtype)


def _scale(boundary: Boundary, factors: Tensor) -> None:
    """Multiply each rank in its writer, in what it passes and in its reader; those of a rank have the product 1.

    Shapes: factors [sides, channels].
    """
    so_far = torch.ones_like(factors[0])
    for factor, stage in zip(factors[:-1], (boundary.writer, *boundary.through), strict=True):
        weight, bias = _weight(stage), stage.bias
        weight.mul_(factor.to(weight).reshape(-1, *[1] * (weight.ndim - 1)))
        so_far = so_far * factor
        if isinstance(bias, Tensor):
            bias.mul_(so_far.to(bias))
    weight, groups = _weight(boundary.reader), read(boundary.reader).groups
    shared = factors[-1].to(weight).reshape(groups, 1, -1, *[1] * (weight.ndim - 2))
    weight.copy_((weight.reshape(groups, -1, *weight.shape[1:]) * shared).reshape(weight.shape))


def _norms(boundary: Boundary) -> list[Tensor]:
    """Return the norms of each rank in the writer, in what it passes, and in the reader."""
    sides = [_weight(stage).detach().double().flatten(1).norm(dim=1) for stage in (boundary.writer, *boundary.through)]
    weight, groups = _weight(boundary.reader).detach().double(), read(boundary.reader).groups
    reads = weight.reshape(groups, -1, *weight.shape[1:]).transpose(1, 2).flatten(2).norm(dim=2).flatten()
    return [*sides, reads]


def _weight(stage: nn.Module) -> Tensor:
    weight: Tensor = stage.weight  # type: ignore[assignment]
    return weight
