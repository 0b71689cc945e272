"""Chains fitted to what their layer computes on data: every stage in turn, by least squares on the responses.

All that pictures say of one layer is the second moment C of the patches it reads: of weights W, and Ŵ that a chain
multiplies out to, the squared error of the responses is tr (W - Ŵ) C (W - Ŵ)ᵀ. In the weights of any one stage Ŵ is
linear, whatever the stages are, so that each is a least-squares problem, solved by conjugate gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from penjing.factors.chain import contract, numbers
from penjing.factors.layer import Basis, LayerSpec, read

SWEEPS, STEPS = 6, 12
"""How often every stage is fitted in turn, and by how many steps of conjugate gradients each time."""

ENOUGH = 1e-6
"""A stage whose gradient has fallen by this share is fitted."""

Form = Callable[[Sequence[Tensor]], Tensor]
"""Multiplies weights out, [out, in · height · width]."""


@dataclass(frozen=True, eq=False)
class Patches:
    """What a layer reads, by its patches: the mean and the second moment, about the mean where a shift is taken.

    Shapes: mean [in · height · width], second [the same, the same].
    """

    mean: Tensor
    second: Tensor

    def errors(self, gap: Tensor) -> Tensor:
        """Return the mean squared response of weights, [out, ...], output by output: of a difference, its error."""
        rows = gap.flatten(1).to(self.second)
        return ((rows @ self.second) * rows).sum(1)


def dense(module: nn.Module, name: str = "") -> Tensor:
    """Return a layer's weights, with zeros where groups do not meet.

    Shapes: [out, in · height · width], float64.
    """
    return contract([numbers(module)], [read(module, name)])[0].flatten(1)


def fit(chain: nn.Sequential, whole: Tensor, patches: Patches, sweeps: int = SWEEPS, steps: int = STEPS) -> Tensor:
    """Fit the weights of a chain, in place, to the layer's ``whole`` weights on these patches; return the product.

    The last stage comes first, for which the stages before give what it reads. The error never rises; biases stay. Work
    is in the precision of ``whole``.

    Shapes: whole and product [out, in · height · width].
    """
    form, layers = _form(chain, whole.dtype)
    weights = [_weight(layer, whole.dtype) for layer in layers]
    second = patches.second.to(whole.dtype)
    for _ in range(sweeps):
        for i in reversed(range(len(weights))):
            weights[i] = _fitted(form, weights, i, whole, second, steps)
    product = form(weights)
    before = form([_weight(layer, whole.dtype) for layer in layers])
    if not patches.errors(whole - product).sum() < patches.errors(whole - before).sum():
        return before
    with torch.no_grad():
        for layer, weight in zip(layers, weights, strict=True):
            at: Any = layer.weight
            at.copy_(weight)
    return product


def _fitted(form: Form, weights: Sequence[Tensor], i: int, whole: Tensor, second: Tensor, steps: int) -> Tensor:
    """Return the weights of one stage after so many steps of conjugate gradients."""
    probe = weights[i].clone().requires_grad_()
    with torch.enable_grad():
        made = form([*weights[:i], probe, *weights[i + 1 :]])

    def back(rows: Tensor) -> Tensor:
        return torch.autograd.grad(made, probe, rows, retain_graph=True)[0]

    found = weights[i]
    slope = back((whole - made.detach()) @ second)
    power = first = float(slope.square().sum())
    way = slope
    for _ in range(steps):
        if power <= ENOUGH**2 * first or power == 0:
            break
        ahead = form([*weights[:i], way, *weights[i + 1 :]])
        pushed = ahead @ second
        bend = float((pushed * ahead).sum())
        if bend <= 0:
            break
        length = power / bend
        found = found + length * way
        slope = slope - length * back(pushed)
        before, power = power, float(slope.square().sum())
        way = slope + power / before * way
    return found


def _weight(layer: nn.Module, dtype: torch.dtype) -> Tensor:
    at: Any = layer.weight
    found: Tensor = at.detach().to("cpu", dtype)
    return found


def _form(chain: nn.Sequential, dtype: torch.dtype) -> tuple[Form, list[nn.Module]]:
    """Return what multiplies a chain's weights out, and the layers that hold these."""
    stages = list(chain.children())
    specs = [read(stage) for stage in stages]
    holders = [list(stage.children()) if isinstance(stage, Basis) else [] if spec.moves else [stage]
               for stage, spec in zip(stages, specs, strict=True)]  # fmt: skip
    fixed = [_still(stage, dtype) if spec.moves else None for stage, spec in zip(stages, specs, strict=True)]

    def form(weights: Sequence[Tensor]) -> Tensor:
        left, parts = list(weights), list[tuple[Tensor, Tensor | None]]()
        for spec, held, still in zip(specs, holders, fixed, strict=True):
            own = [left.pop(0) for _ in held]
            parts.append(still if still is not None else (_joined(own, spec), None))
        return contract(parts, specs)[0].flatten(1)

    return form, [layer for held in holders for layer in held]


def _still(stage: nn.Module, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """Return the numbers of a stage that only moves values: an index, or kernels in this precision."""
    weight, _ = numbers(stage)
    return (weight.to(dtype) if weight.is_floating_point() else weight), None


def _joined(kernels: Sequence[Tensor], spec: LayerSpec) -> Tensor:
    """Return the kernels of a stage as one, those of filters side by side each in the middle."""
    laid = []
    for kernel in kernels:
        if kernel.ndim < 4:
            return kernel
        high, wide = ((k - n) // 2 for k, n in zip(spec.kernel, kernel.shape[2:], strict=True))
        laid.append(nn.functional.pad(kernel, (wide, wide, high, high)))
    return torch.cat(laid)
