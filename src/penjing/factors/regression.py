"""Low rank fitted to what a layer computes on data: the responses are approached, not the weights.

The linear fits need sums over samples alone (``Moments``), so that pictures never lie in memory together. All give a
``Map`` of responses, y ≈ last · first · x + shift, which ``chained`` writes as a k x k and a 1 x 1 layer.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from penjing.core.errors import PlanError
from penjing.factors import chain
from penjing.factors.layer import read, values
from penjing.factors.memory import check_fits
from penjing.factors.spectra import eigen
from penjing.factors.svd import svd

RIDGE = 1e-8
"""The ridge of the regression, in units of the mean variance."""

PENALTIES, ROUNDS = (0.01, 1.0), 25
"""How strongly the auxiliary responses are tied to the fit, and for how many rounds each (section 3.2 of the paper)."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over samples of what a layer is given (x) and of what it should give (y); those of batches add up.

    Shapes: x [p], y [q], xx [p, p], yx [q, p], yy [q, q]; float64.
    """

    count: int
    x: Tensor
    y: Tensor
    xx: Tensor
    yx: Tensor
    yy: Tensor

    @staticmethod
    def of(x: Tensor, y: Tensor) -> Moments:
        """Return the sums over the rows of two matrices of samples.

        Raises: PlanError for values that are not finite, or as many rows in one as in the other.
        """
        x, y = x.detach().to("cpu", torch.float64), y.detach().to("cpu", torch.float64)
        if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or not len(x):
            raise PlanError(f"Samples are rows, as many of x as of y; got {list(x.shape)} and {list(y.shape)}.")
        if not (x.isfinite().all() and y.isfinite().all()):
            raise PlanError("Responses are not finite; look for NaN in the data or in the weights.")
        return Moments(len(x), x.sum(0), y.sum(0), x.T @ x, y.T @ x, y.T @ y)

    def __add__(self, other: Moments) -> Moments:
        """Return the sums over both."""
        return Moments(
            self.count + other.count, self.x + other.x, self.y + other.y, self.xx + other.xx, self.yx + other.yx,
            self.yy + other.yy,
        )  # fmt: skip

    def about_zero(self) -> Moments:
        """Return the same with means of zero, so that a fit has no shift."""
        return replace(self, x=torch.zeros_like(self.x), y=torch.zeros_like(self.y))

    def centred(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the covariances xx, yx and yy."""
        n, x, y = self.count, self.x, self.y
        return self.xx / n - _outer(x, x) / n**2, self.yx / n - _outer(y, x) / n**2, self.yy / n - _outer(y, y) / n**2


def of_noise(module: nn.Module, name: str = "") -> Moments:
    """Return the moments of what a layer writes when it reads white noise: its weights alone decide.

    Raises: PlanError for a grouped layer, or weights that are not finite.
    """
    weight, bias = _weights(module, name)
    second = weight @ weight.T + _outer(bias, bias)
    return Moments(1, bias, bias, second, second, second)


def responses(module: nn.Module, patches: Moments, name: str = "") -> Moments:
    """Return the moments of a layer's responses from those of its patches, [in · height · width] a sample.

    Raises: PlanError for a grouped layer, or patches of another size.
    """
    weight, bias = _weights(module, name)
    if patches.x.shape != patches.y.shape or len(patches.x) != weight.shape[1]:
        raise PlanError(f"{name or read(module)} reads patches of {weight.shape[1]}; got {len(patches.x)}.")

    def second(sums: Tensor, left: Tensor, right: Tensor) -> Tensor:
        straight = weight @ sums @ weight.T + _outer(weight @ left, bias) + _outer(bias, weight @ right)
        return straight + patches.count * _outer(bias, bias)

    x, y = patches.x, patches.y
    return Moments(
        patches.count, weight @ x + patches.count * bias, weight @ y + patches.count * bias,
        second(patches.xx, x, x), second(patches.yx, y, x), second(patches.yy, y, y),
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Map:
    """A linear map of responses: last · first · x + shift.

    Shapes: last [q, r], first [r, p], shift [q].
    """

    last: Tensor
    first: Tensor
    shift: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Return the mapped rows."""
        return x @ self.first.T @ self.last.T + self.shift


def principal(moments: Moments, rank: int) -> Map:
    """Return the projection of responses to their first principal components.

    Paper: Zhang et al., TPAMI 2016, section 3.1.
    """
    rank = _checked(moments, rank)
    vectors = eigen(moments.centred()[2])[1][:, :rank]
    mean = moments.y / moments.count
    return Map(vectors, vectors.T, mean - vectors @ (vectors.T @ mean))


def reduced_rank(moments: Moments, rank: int) -> Map:
    """Return the map of a rank that takes x nearest to y in squared error: reduced-rank regression.

    With x the responses behind layers that are approximated already, and y those of the original, errors do not add
    up along the network.

    Paper: Zhang et al., TPAMI 2016, section 3.3 (asymmetric reconstruction), in closed form.
    """
    rank = _checked(moments, rank)
    xx, yx, _ = moments.centred()
    ridge = RIDGE * xx.diagonal().mean().clamp_min(1e-300) * torch.eye(len(xx), dtype=xx.dtype)
    full = torch.linalg.solve(xx + ridge, yx.T).T
    vectors = eigen(full @ yx.T)[1][:, :rank]
    first = vectors.T @ full
    return Map(vectors, first, moments.y / moments.count - vectors @ (first @ (moments.x / moments.count)))


def nonlinear(x: Tensor, y: Tensor, rank: int) -> Map:
    """Return the map of a rank whose ReLU is nearest to the ReLU of y, over rows of samples.

    Auxiliary responses z stand between: given the map each z has a closed form, given z the map is a reduced-rank
    regression. The best map met is returned, the linear one among them.

    Paper: Zhang et al., TPAMI 2016, section 3.2.
    """
    x, y = x.detach().to("cpu", torch.float64), y.detach().to("cpu", torch.float64)
    wanted = y.relu()
    best = found = reduced_rank(Moments.of(x, y), rank)
    least = (wanted - best(x).relu()).square().sum()
    for tie in PENALTIES:
        for _ in range(ROUNDS):
            guess = found(x)
            off = guess.clamp_max(0)
            on = ((tie * guess + wanted) / (tie + 1)).clamp_min(0)
            loss_off = wanted.square() + tie * (off - guess).square()
            loss_on = (wanted - on).square() + tie * (on - guess).square()
            found = reduced_rank(Moments.of(x, torch.where(loss_off < loss_on, off, on)), rank)
            reached = (wanted - found(x).relu()).square().sum()
            if reached < least:
                best, least = found, reached
    return best


def energies(moments: Moments) -> Tensor:
    """Return the variance of the responses along each principal component, falling: what a rank holds on data."""
    return eigen(moments.centred()[2])[0]


def chained(module: nn.Module, mapping: Map, name: str = "") -> nn.Sequential:
    """Return the layer followed by the map, as the chain of svd's form output; the bias is the map's, if any.

    Raises: PlanError for a grouped layer, a map of other responses, or too little memory.
    """
    weight, bias = _weights(module, name)
    spec = read(module, name)
    if mapping.first.shape[1] != spec.out_channels or len(mapping.last) != spec.out_channels:
        raise PlanError(f"{name or spec} has {spec.out_channels} responses; the map is of {len(mapping.last)}.")
    check_fits(8 * 4 * spec.weights, f"{name or spec}: the regression")
    rank = len(mapping.first)
    root = (mapping.first @ weight).norm(dim=1).sqrt()
    scale = torch.where(root > 0, root, 1.0)  # of one norm on both sides, as svd has it
    stages = svd().stages(spec, (rank,))
    first, last = stages["first"], stages["last"]
    shift = mapping.shift + mapping.last @ (mapping.first @ bias)
    has_bias = spec.bias or bool(shift.any())
    made = {
        "first": chain.layer(first, (mapping.first @ weight) / scale[:, None], None, module),
        "last": chain.layer(last, mapping.last * scale, shift if has_bias else None, module),
    }
    return nn.Sequential(OrderedDict(made))


def _weights(module: nn.Module, name: str) -> tuple[Tensor, Tensor]:
    """Return the weights as a matrix and the bias, zero where there is none."""
    spec = read(module, name)
    if spec.kind == "pick" or spec.groups > 1:
        raise PlanError(f"{name or spec} is grouped; a map of all its responses would join the groups. Use svd.")
    bias: Tensor | None = module.bias  # type: ignore[assignment]
    weight = values(module, name).flatten(1)
    return weight, torch.zeros(len(weight), dtype=torch.float64) if bias is None else bias.detach().cpu().double()


def _checked(moments: Moments, rank: int) -> int:
    most = len(moments.y)
    if isinstance(rank, bool) or not 1 <= rank <= most:
        raise PlanError(f"Responses of {most} channels have a rank from 1 to {most}; got {rank}.")
    return rank


def _outer(a: Tensor, b: Tensor) -> Tensor:
    return a[:, None] * b[None]
