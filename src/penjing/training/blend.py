"""Blend the pictures of a batch with one another."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from penjing.core.random import stream


@dataclass(frozen=True, eq=False)
class Blend:
    """``share`` of each sample and the rest of its ``partner``, an index into the same batch."""

    share: float
    partner: Tensor

    @classmethod
    def drawn(cls, alpha: float, samples: int, seed: int, step: int) -> Blend:
        """Draw a blend for one step: one share from Beta(alpha, alpha) for the whole batch, as the paper's code does.

        Paper: Zhang, Cisse, Dauphin, Lopez-Paz, mixup: Beyond Empirical Risk Minimization, ICLR 2018, eq. 1.
        """
        rng = stream(seed, f"train/mixup/{step}")
        return cls(float(rng.beta(alpha, alpha)), torch.from_numpy(rng.permutation(samples)))

    def of(self, x: Tensor) -> Tensor:
        """Return the blended batch; shapes as ``x``."""
        return self.share * x + (1 - self.share) * x[self.partner]
