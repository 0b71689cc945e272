"""Write layers as two, by the principal components of what they write on pictures."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from penjing.core import console
from penjing.core.modes import modes_kept
from penjing.core.random import torch_stream
from penjing.core.registry import register
from penjing.factors.base import Factorization
from penjing.factors.layer import LayerSpec, read
from penjing.factors.regression import Map, Moments, chained, energies, of_noise, principal
from penjing.factors.side_by_side import side_by_side
from penjing.factors.spectra import Axis
from penjing.factors.svd import svd as decomposition
from penjing.graph.chains import put_in
from penjing.graph.norms_behind import norms_behind_on
from penjing.graph.patches import drawn, picked
from penjing.rewrites.factored import Factored, Made


@dataclass(frozen=True, eq=False)
class Written:
    """What a layer writes, and the batch norm that reads it, if one does at once."""

    moments: Moments
    norm: _BatchNorm | None

    def fitted(self, module: nn.Module) -> Moments:
        """Return the moments to fit: about the mean where a bias or a norm can take that."""
        shifted = self.norm is not None or getattr(module, "bias", None) is not None
        return self.moments if shifted else self.moments.about_zero()

    def chain(self, module: nn.Module, found: Map, name: str) -> nn.Sequential:
        """Return the layer followed by a map of what it writes; a norm takes the mean away, whatever it is."""
        if self.norm is not None and getattr(module, "bias", None) is None:
            assert self.norm.running_mean is not None
            with torch.no_grad():
                self.norm.running_mean -= found.shift.to(self.norm.running_mean)
            found = Map(found.last, found.first, torch.zeros_like(found.shift))
        return chained(module, found, name)


@register("rewrite")
@dataclass(frozen=True)
class svd_responses(Factored):  # noqa: N801  (registered under its own name)
    """Reduce the output channels as svd does, to the principal components of what the layer writes on pictures.

    A rank holds the variance of the responses along its component. The mean goes to the bias, or into the batch norm
    behind the layer; where there is neither, responses are approached without a shift. Steps give the calibration
    ``pictures``; without any the layer is taken to read white noise, which is ``svd``. Grouped layers have no site.

    Paper: Zhang, Zou, He, Sun, Accelerating Very Deep Convolutional Networks for Classification and Detection, TPAMI
    2016, section 3.1. Differs: of each picture at most 64 positions take part.
    """

    by: ClassVar[Factorization] = decomposition("output")

    pictures: Sequence[Tensor] = field(default=(), repr=False, compare=False)
    _seen: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def on(self, pictures: Sequence[Tensor]) -> Self:
        """Return the same for these batches."""
        return replace(self, pictures=pictures, _seen={})

    def refuses(self, spec: LayerSpec) -> str:
        """Return why a layer cannot be factored so, as the end of a sentence, or nothing where it can."""
        grouped = "is grouped, and components of all its channels would join the groups; take svd"
        return self.by.refuses(spec) or (grouped if spec.groups > 1 else "")

    def look(self, model: nn.Module) -> None:
        """Run the pictures through the model, once."""
        if self._seen.get("model") is not model:
            own = (nn.Conv2d, nn.Linear)
            paths = [path for path, module in model.named_modules() if type(module) in own]
            self._seen.update(model=model, written=self._written(model, paths))

    def spectra(self, model: nn.Module, path: str, name: str) -> tuple[Axis, ...]:
        """Return the variance along each component; it is the rank of no matrix with noise of one size."""
        self.look(model)
        module = model.get_submodule(path)
        (full,) = self.by.full(read(module, name))
        return (Axis("rank", energies(self._seen["written"][path].fitted(module))[None, :full]),)

    def put(self, model: nn.Module, layers: Mapping[str, Made]) -> None:
        """Put chains, in place, where the layers of these paths were: all are fitted to what they write now."""
        written = self._written(model, layers)
        olds = {path: model.get_submodule(path) for path in layers}

        def fitted(path: str) -> Map:
            return principal(written[path].fitted(olds[path]), layers[path][2][0])

        needs = [self.needs(read(old, layers[path][0])) for path, old in olds.items()]
        maps = side_by_side(fitted, list(layers), needs, "factorising")
        for (path, (name, _, _)), found in zip(layers.items(), maps, strict=True):
            put_in(model, path, written[path].chain(olds[path], found, name))

    def _written(self, model: nn.Module, paths: Collection[str]) -> dict[str, Written]:
        """Return what layers write, in one pass over the pictures."""
        modules = {path: model.get_submodule(path) for path in paths}
        if not self.pictures:
            plain = {path: module for path, module in modules.items() if getattr(module, "groups", 1) == 1}
            return {path: Written(of_noise(module, path), None) for path, module in plain.items()}
        heard, behind = _Heard(), norms_behind_on(model, self.pictures[0])
        with ExitStack() as stack:
            stack.enter_context(modes_kept(model))
            stack.enter_context(torch.no_grad())
            model.eval()
            for path, module in modules.items():
                stack.enter_context(module.register_forward_hook(heard.layer(path)))
            device = next(model.parameters()).device
            for x in console.track(self.pictures, "collecting responses"):
                model(x.to(device))
        norms: dict[str, Any] = {path: model.get_submodule(norm) for path, norm in behind.items()}
        return {path: Written(moments, norms.get(path)) for path, moments in heard.moments.items()}


def sampled(y: Tensor, module: nn.Module, generator: torch.Generator) -> Tensor:
    """Return what a layer wrote at positions drawn from each picture, as rows of channels."""
    linear = isinstance(module, nn.Linear)
    table = y if linear else y.movedim(1, -1)
    table = table.reshape(len(y), -1, table.shape[-1])
    return picked(table, drawn(len(table), table.shape[1], generator).to(y.device))


class _Heard:
    """What forwards tell: moments by layer."""

    def __init__(self) -> None:
        self.moments: dict[str, Moments] = {}
        self._generator = torch_stream(0, "svd_responses/positions")

    def layer(self, path: str) -> Callable[[nn.Module, Any, Tensor], None]:
        """Return what hears a layer write."""

        def wrote(module: nn.Module, _: Any, y: Tensor) -> None:
            rows = sampled(y, module, self._generator)
            found = Moments.of(rows, rows)
            self.moments[path] = self.moments[path] + found if path in self.moments else found

        return wrote
