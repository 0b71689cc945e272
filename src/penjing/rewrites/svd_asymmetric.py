"""Write layers as two, one after the other, each fitted to what it reads behind those that are two already."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from penjing.core import console
from penjing.core.modes import modes_kept
from penjing.core.pausing import Pausing
from penjing.core.random import torch_stream
from penjing.core.registry import register
from penjing.factors.regression import Map, Moments, reduced_rank
from penjing.graph.chains import put_in
from penjing.rewrites.factored import Made
from penjing.rewrites.svd_responses import Written, sampled, svd_responses

FAINT = 1e-3
"""A channel whose batch-norm scale is below this share of its layer's largest counts as much as one that has it."""

Heard: TypeAlias = tuple[str, Tensor]
"""A layer's path and rows of what it wrote."""


@register("rewrite")
@dataclass(frozen=True)
class svd_asymmetric(svd_responses):  # noqa: N801  (registered under its own name)
    """Reduce the output channels as svd_responses does, each layer so that errors before it are made up for.

    In the order of execution: of all maps of the rank, a layer gets the one that takes what it writes behind the chains
    so far nearest to what it wrote before there were any, in the units of a batch norm behind it. What ranks hold, and
    a network without pictures, are as for ``svd_responses``.

    Paper: Zhang, Zou, He, Sun, TPAMI 2016, section 3.3. Differs: in closed form, without the ReLU behind the layer.
    """

    def put(self, model: nn.Module, layers: Mapping[str, Made]) -> None:
        """Put chains, in place, where the layers of these paths were; all batches stop at each layer for its chain."""
        if not self.pictures:
            super().put(model, layers)
            return
        written = self._written(model, layers)
        olds = {path: model.get_submodule(path) for path in layers}
        modes = {path: old.training for path, old in olds.items()}
        before, chains = copy.deepcopy(model), dict[str, nn.Sequential]()
        with ExitStack() as stack:
            for one in (before, model):
                stack.enter_context(modes_kept(one))
                one.eval()
            rectified = self._rectified(before, layers)
            listening = _Listening(chains)
            for path, old in olds.items():
                hook = before.get_submodule(path).register_forward_hook(partial(listening.wrote, path, False))
                stack.enter_context(hook)
                stack.enter_context(old.register_forward_hook(partial(listening.wrote, path, True)))
            works = [
                partial(listening.forward, one, b, x) for b, x in enumerate(self.pictures) for one in (model, before)
            ]
            forwards = [stack.enter_context(Pausing(work)) for work in works]
            for _ in console.track(list(layers), "factorising"):
                heard = [told for forward in forwards if (told := forward.resume()) is not None]
                if len(heard) == len(forwards):
                    path = heard[0][0]
                    rows = [rows for _, rows in heard]
                    chains[path] = self._chain(olds[path], written[path], rows, path in rectified, layers[path])
        for path, chain in chains.items():
            put_in(model, path, chain.train(modes[path]))

    def _chain(
        self, old: nn.Module, written: Written, rows: list[Tensor], rectified: bool, made: Made
    ) -> nn.Sequential:
        """Return a layer's chain; ``rows`` are, batch by batch, what it writes now and what it wrote before."""
        name, _, (rank,) = made
        scale, shift = _affine(written.norm, rows[0].shape[1])
        now, then = ([scale * x.to(scale) + shift for x in rows[start::2]] for start in (0, 1))
        first, *others = (Moments.of(x, y) for x, y in zip(now, then, strict=True))
        written = replace(written, moments=sum(others, first))
        found = self._fit(written.fitted(old), now, then, rectified, rank)
        back = (found.last @ (found.first @ shift) + found.shift - shift) / scale
        return written.chain(old, Map(found.last / scale[:, None], found.first * scale, back), name)

    def _fit(self, moments: Moments, now: list[Tensor], then: list[Tensor], rectified: bool, rank: int) -> Map:
        """Return the map of what a layer writes now, behind its norm, to what it wrote then."""
        return reduced_rank(moments, rank)

    def _rectified(self, model: nn.Module, paths: Collection[str]) -> Collection[str]:
        """Return the layers behind which a ReLU is to be looked at."""
        return ()


def _affine(norm: _BatchNorm | None, channels: int) -> tuple[Tensor, Tensor]:
    """Return by what a norm multiplies what it reads, and what it then adds."""
    scale, shift = torch.ones(channels, dtype=torch.float64), torch.zeros(channels, dtype=torch.float64)
    if norm is None:
        return scale, shift
    assert norm.running_var is not None and norm.running_mean is not None
    scale = 1 / (norm.running_var.double() + norm.eps).sqrt()
    if norm.weight is not None:
        scale, shift = scale * norm.weight.detach().double(), norm.bias.detach().double()
    shift = shift.to(scale) - norm.running_mean.double() * scale
    least = max(FAINT * float(scale.abs().max()), 1e-30)
    return torch.where(scale.abs() < least, least, scale).cpu(), shift.cpu()


class _Listening:
    """Hears layers write, in forwards that run in threads of their own, which go on with what the chain writes."""

    def __init__(self, chains: Mapping[str, nn.Sequential]) -> None:
        self._chains = chains
        self._batches: dict[int, tuple[int, Callable[[Heard], None]]] = {}

    def forward(self, model: nn.Module, b: int, x: Tensor, tell: Callable[[Heard], None]) -> None:
        """Run one batch, and wait wherever a layer has written."""
        self._batches[threading.get_ident()] = b, tell
        with torch.no_grad():
            model(x.to(next(model.parameters()).device))

    def wrote(self, path: str, replaced: bool, module: nn.Module, args: tuple[Any, ...], y: Tensor) -> Tensor | None:
        """Hand out what a layer wrote; return what is to be read instead."""
        b, tell = self._batches[threading.get_ident()]
        tell((path, sampled(y, module, torch_stream(b, f"svd_asymmetric/{path}"))))
        made: Tensor | None = self._chains[path](*args) if replaced else None
        return made
