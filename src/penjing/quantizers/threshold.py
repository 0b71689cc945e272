"""A batch norm whose sign is all that is read, as one comparison a channel.

Paper: Hubara et al., Binarized Neural Networks, 2016, section 1.3 computes the norm; that its sign is a comparison is
of Umuroglu et al., FINN, 2017, section 4.2.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from penjing.quantizers.base import sign


@dataclass(frozen=True, eq=False)
class Threshold:
    """One where x is at ``theta`` or above, else minus one; where ``flip``, one where it is at ``theta`` or below.

    Shapes: [channels] both. A channel of one sign only has a threshold of minus infinity (one) or infinity.
    """

    theta: Tensor
    flip: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Return the signs of [n, channels, ...], in its type."""
        theta, flip = (v.reshape(-1, *[1] * (x.ndim - 2)) for v in (self.theta, self.flip))
        return torch.where(torch.where(flip, x <= theta, x >= theta), 1.0, -1.0).to(x.dtype)


def fold(gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor, eps: float, scale: Tensor | float = 1.0) -> Threshold:
    """Return when the norm of ``scale`` times x is 0 or more: the threshold mean - beta * deviation / gamma, scaled.

    Shapes: [channels] each; float64 inside and out.

    >>> one = torch.ones(3)
    >>> found = fold(torch.tensor([2.0, -2.0, 0.0]), -one, 3 * one, one, eps=0.0)
    >>> found.theta, found.flip
    (tensor([3.5000, 2.5000,    inf], dtype=torch.float64), tensor([False,  True, False]))
    """
    gamma, beta, mean, var = (v.detach().double() for v in (gamma, beta, mean, var))
    deviation = (var + eps).sqrt()
    slope = gamma * torch.as_tensor(scale).detach().double()
    constant = torch.where(beta - mean * gamma / deviation >= 0, -torch.inf, torch.inf)
    theta = torch.where(slope != 0, (mean * gamma - beta * deviation) / slope, constant)
    return Threshold(theta, slope < 0)


def fold_integers(
    gamma: Tensor,
    beta: Tensor,
    mean: Tensor,
    var: Tensor,
    eps: float,
    terms: int,
    scale: Tensor | float = 1.0,
) -> Threshold:
    """Return thresholds for the sums of ``terms`` signs, integers from -terms to terms, as int32.

    They are found by halving, on the float32 norm as torch computes it: a sum may lie on a threshold, where arithmetic
    that is exact and the norm's own would tell different signs. A channel of one sign only compares with ``-terms``
    (one) or ``terms + 1``.

    Shapes: [channels] each, float32.
    """
    channels = len(gamma)
    scale = torch.as_tensor(scale, dtype=torch.float32).expand(channels)

    def fires(sums: Tensor) -> Tensor:
        x = (sums.float() * scale)[None, :, None, None]
        return sign(F.batch_norm(x, mean, var, gamma, beta, eps=eps)).flatten() > 0

    low, high = torch.full((channels,), -terms), torch.full((channels,), terms)
    falls = fires(low) & ~fires(high)
    steady = fires(low) == fires(high)
    always = fires(low) & steady
    high = high + 1  # of the integers from low to high, the first at which the sign is that of the far end
    while bool((low < high).any()):
        middle = torch.div(low + high, 2, rounding_mode="floor")
        reached = fires(middle) != falls
        low, high = torch.where(reached, low, middle + 1), torch.where(reached, middle, high)
    theta = torch.where(falls, high - 1, high)
    theta = torch.where(steady, torch.where(always, -terms, terms + 1), theta)
    return Threshold(theta.int(), falls)
