"""What every factorisation offers; a new one says how one group is factored, and no more."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, TypeGuard

import torch
from torch import Tensor, nn

from penjing.core.errors import PlanError
from penjing.factors import chain
from penjing.factors.chain import Cost
from penjing.factors.layer import LayerSpec, read, values
from penjing.factors.memory import check_fits
from penjing.factors.spectra import Axis

Ranks = tuple[int, ...]


@dataclass(frozen=True)
class Factorization(ABC):
    """A way to write one layer as a chain of smaller linear ones.

    A grouped convolution is factored group by group and put together again: a rank is a rank of every group.
    """

    axes: ClassVar[tuple[str, ...]] = ("rank",)
    exact: ClassVar[bool] = True
    """Whether the chain at full rank computes what the layer does."""

    @property
    def name(self) -> str:
        """The name it is registered under."""
        return type(self).__name__

    # ------------------------------------------------------------------------------------- what it says

    def refuses(self, spec: LayerSpec) -> str:
        """Return why a layer cannot be factored so, as the end of a sentence, or nothing where it can."""
        if spec.depthwise:
            return "is depthwise: each filter reads one channel, and there is nothing to factor"
        return self._refuses(spec.one_group())

    def full(self, spec: LayerSpec) -> Ranks:
        """Return the full rank along each axis."""
        return self._full(spec.one_group())

    def stages(self, spec: LayerSpec, ranks: Sequence[int]) -> dict[str, LayerSpec]:
        """Return the shapes of the chain by the names of its stages; the bias is on the last with weights."""
        made = {n: stage.times(spec.groups) for n, stage in self._stages(spec.one_group(), tuple(ranks)).items()}
        last = next(n for n in reversed(made) if not made[n].moves)
        return {n: replace(stage, bias=spec.bias and n == last) for n, stage in made.items()}

    def cost(self, spec: LayerSpec, ranks: Sequence[int], size: Sequence[int] | None = None) -> Cost:
        """Return what the chain costs on an input of this height and width, by default the smallest it takes."""
        return chain.price(list(self.stages(spec, ranks).values()), size or spec.least_size)

    def pays(self, spec: LayerSpec, ranks: Sequence[int], size: Sequence[int] | None = None) -> bool:
        """Tell whether the chain has fewer parameters and fewer MACs than the layer."""
        new, old = self.cost(spec, ranks, size), chain.price([spec], size or spec.least_size)
        return new.params < old.params and new.macs < old.macs

    def memory(self, spec: LayerSpec, ranks: Sequence[int] | None = None) -> int:
        """Estimate the memory that factoring takes at most, at full rank unless told.

        Units: bytes.
        """
        group = spec.one_group()
        return 8 * (4 * spec.weights + self._floats(group, tuple(ranks or self._full(group))))

    # ------------------------------------------------------------------------------------- what it does

    def spectra(self, module: nn.Module, name: str = "") -> tuple[Axis, ...]:
        """Return what each rank holds of the layer's squared weights, one entry an axis.

        Raises: PlanError for a layer that is not taken, weights that are not finite, or too little memory.
        """
        spec = self._taken(module, name)
        check_fits(self.memory(spec), f"{name or spec}: {self.name}")
        groups = [self._spectra(kernel) for kernel in values(module, name).chunk(spec.groups)]
        return tuple(
            Axis(axis, torch.stack([group[i][0] for group in groups]), *groups[0][i][1:])
            for i, axis in enumerate(self.axes)
        )

    def split(self, module: nn.Module, ranks: int | Sequence[int], name: str = "") -> nn.Sequential:
        """Return the layer as a chain of these ranks; ``name`` is what messages call the layer.

        The stages are ordinary layers of the precision, device and mode of the original, which is not changed.

        Raises: PlanError for a layer that is not taken, a rank out of range, weights that are not finite, or too
        little memory.
        """
        spec = self._taken(module, name)
        ranks = self.checked(spec, ranks, name)
        check_fits(self.memory(spec, ranks), f"{name or spec}: {self.name}")
        kernel = values(module, name)
        bias: Tensor | None = getattr(module, "bias", None)
        if bias is not None and not bool(bias.isfinite().all()):
            raise PlanError(f"{name or spec} has a bias that is not finite; train or load it again.")
        parts = [self._factors(group, ranks) for group in kernel.chunk(spec.groups)]
        weights = {n: torch.cat([part[n] for part in parts]) for n in parts[0]}
        return chain.build(self.stages(spec, ranks), weights, module)

    def merge(self, made: nn.Sequential, name: str = "") -> nn.Module:
        """Return the one layer that computes what the chain does, also after training it.

        Raises: PlanError for a chain that no single layer computes.
        """
        return chain.merge(made, name)

    def checked(self, spec: LayerSpec, ranks: int | Sequence[int], name: str = "") -> Ranks:
        """Return the ranks as a tuple, one an axis; a single number stands for all axes, each at most full.

        Raises: PlanError naming the layer and the rank that it cannot have.
        """
        full = self.full(spec)
        given: Sequence[object] = ranks if isinstance(ranks, Sequence) else [ranks]
        if len(given) == 1 < len(full) and _whole(given[0]) and given[0] <= max(full):
            given = [min(given[0], most) for most in full]
        found = tuple(rank for rank, most in zip(given, full, strict=False) if _whole(rank) and 1 <= rank <= most)
        if not len(found) == len(given) == len(full):
            wanted = ", ".join(f"{axis} 1 to {most}" for axis, most in zip(self.axes, full, strict=True))
            raise PlanError(f"{name or spec} cannot be factored by {self.name} with ranks {ranks}; it takes {wanted}.")
        return found

    def _taken(self, module: nn.Module, name: str) -> LayerSpec:
        spec = read(module, name)
        reason = "only moves channels" if spec.moves else self.refuses(spec)
        if reason:
            raise PlanError(f"{name or spec} cannot be factored by {self.name}: it {reason}.")
        return spec

    # ------------------------------------------------------------------------------------- one group

    def _refuses(self, spec: LayerSpec) -> str:
        return ""

    @abstractmethod
    def _full(self, spec: LayerSpec) -> Ranks: ...

    @abstractmethod
    def _stages(self, spec: LayerSpec, ranks: Ranks) -> dict[str, LayerSpec]: ...

    @abstractmethod
    def _factors(self, kernel: Tensor, ranks: Ranks) -> Mapping[str, Tensor]:
        """Return the weights of each stage, the output channels first, for a kernel [out, in, height, width]."""

    @abstractmethod
    def _spectra(self, kernel: Tensor) -> list[tuple[Tensor, int, int]]:
        """Return, for each axis, the energies, falling, and the rows and columns of their matrix."""

    @abstractmethod
    def _floats(self, spec: LayerSpec, ranks: Ranks) -> int:
        """Return how many float64 numbers factoring holds at once, beside the kernel."""


def _whole(rank: object) -> TypeGuard[int]:
    return isinstance(rank, int) and not isinstance(rank, bool)
