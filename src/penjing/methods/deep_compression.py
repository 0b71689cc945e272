"""Deep Compression: prune, share weights, and code what is left by how often it occurs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from penjing.core.errors import PlanError
from penjing.core.registry import register
from penjing.methods.han import han

MOST = 8
"""Bits of a shared weight at most."""


@register("method")
@dataclass(frozen=True)
class deep_compression:  # noqa: N801  (registered under its own name)
    """Set small weights to zero and retrain the others, then let them share a few values a layer, and train those.

    ``sparsity``, ``rounds``, ``epochs`` and ``lr`` are those of ``han``, which prunes. With a ``quality`` a round
    zeroes what is below so many standard deviations of a layer's surviving weights, and how many those are is left
    open. Then each convolution has 2^``conv_bits`` values and each linear layer 2^``linear_bits``, one of them zero,
    first and last layers included; ``shared`` epochs train the values, and which weight has which stays. Huffman's
    coding and the places of zeros are no step: a bundle stores codes as is smallest.

    Raises: PlanError naming an option that cannot be.
    Paper: Han, Mao, Dally, Deep Compression: Compressing Deep Neural Networks with Pruning, Trained Quantization and
    Huffman Coding, ICLR 2016.
    Differs: of the pruning what ``han`` says; biases and batch norm train along with the shared values; places of
    zeros are stored in whichever form is smallest, not always as gaps of fixed width.
    """

    sparsity: float = 0.9
    quality: float | None = None
    rounds: int = 5
    epochs: int = 4
    conv_bits: int = 8
    linear_bits: int = 5
    shared: int = 4
    lr: float = 0.002
    terms: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: PlanError naming the option.
        """
        if not 0 < self.sparsity < 1:
            raise PlanError(
                f"deep_compression: sparsity is the share of weights set to zero, between 0 and 1; got {self.sparsity}."
            )
        if self.quality is not None and not self.quality > 0:
            raise PlanError(
                f"deep_compression: quality is a number of standard deviations, above 0; got {self.quality}."
            )
        for name in ("rounds", "epochs", "shared"):
            if getattr(self, name) < 1:
                raise PlanError(f"deep_compression: {name} must be 1 or more; got {getattr(self, name)}.")
        for name in ("conv_bits", "linear_bits"):
            if getattr(self, name) not in range(1, MOST + 1):
                raise PlanError(f"deep_compression: {name} are 1 to {MOST} bits; got {getattr(self, name)}.")

    def __call__(self) -> list[Any]:
        """Return the rounds of pruning, the sharing, and the training of what is shared."""
        bits = {"conv:*": self.conv_bits, "linear:*": self.linear_bits}
        return [
            *self._pruned(),
            {"quantize": {"method": "codebook", "bits": bits, "ends": True}},
            {"train": {"epochs": self.shared, "lr": self.lr, "terms": list(self.terms)}},
        ]

    def _pruned(self) -> list[Any]:
        steps = han(self.sparsity, self.rounds, self.epochs, self.lr, self.terms)()
        if self.quality is None:
            return steps
        rule = {"allocator": {"threshold": {"k": self.quality}}, "budget": {}}
        return [{"prune": step["prune"] | rule} if "prune" in step else step for step in steps]
