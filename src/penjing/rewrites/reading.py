"""What layers read on pictures, and how much what they write moves the answers: all that fitting a chain needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penjing.core import console
from penjing.core.layers import Layer
from penjing.core.modes import modes_kept
from penjing.core.outputs import answers
from penjing.core.random import torch_stream
from penjing.factors.fitted import Patches
from penjing.factors.layer import read, sides
from penjing.factors.memory import check_fits
from penjing.graph.norms_behind import norms_behind_on
from penjing.graph.patches import drawn, patches

SLOPES = 256
"""How many pictures tell how much the answers move, so many at once that their forwards fit beside one another."""

AT_ONCE = 16
"""Pictures of one backward."""


@dataclass(frozen=True, eq=False)
class Reading:
    """What a layer reads, and the squared movement of the answers by what it writes, output by output.

    ``norm`` is the path of the batch norm that alone reads what it writes, if one does.

    Shapes: slopes [out].
    """

    patches: Patches
    slopes: Tensor
    norm: str

    def shift(self, model: nn.Module, chain: nn.Sequential, old: nn.Module, gap: Tensor) -> None:
        """Give a chain, which computes ``old`` less a gap [out, ...], the mean that the layer had.

        It goes to the biases, or else into the model's norm behind.
        """
        lost = gap.flatten(1) @ self.patches.mean
        biased = [m for m in chain.modules() if isinstance(m, nn.Conv2d | nn.Linear) and m.bias is not None]
        with torch.no_grad():
            if getattr(old, "bias", None) is not None:
                rows = _order(chain)
                lost = torch.empty_like(lost).index_copy(0, rows, lost) if rows is not None else lost
                for layer, part in zip(biased, lost.split([len(m.weight) for m in biased]), strict=True):
                    assert layer.bias is not None
                    layer.bias += part.to(layer.bias)
            elif self.norm:
                norm: Any = model.get_submodule(self.norm)
                norm.running_mean += -lost.to(norm.running_mean)


def _order(chain: nn.Sequential) -> Tensor | None:
    """Return the index of the pick that a chain ends with, if any."""
    index = getattr(chain[-1], "index", None)
    return index.cpu() if isinstance(index, Tensor) else None


def blank(module: nn.Module) -> Reading:
    """Return the reading of a layer that reads white noise, and whose outputs all count alike."""
    spec = read(module)
    width = spec.in_channels * spec.taps
    noise = Patches(torch.zeros(width, dtype=torch.float64), torch.eye(width, dtype=torch.float64))
    return Reading(noise, torch.ones(spec.out_channels, dtype=torch.float64), "")


def readings(model: nn.Module, layers: Mapping[str, Layer], pictures: Sequence[Tensor]) -> dict[str, Reading]:
    """Return what layers read, by path, over these batches; of a path that did not run, nothing.

    Raises: PlanError where the second moments do not fit into memory.
    """
    heard, behind = _Heard(model, layers), norms_behind_on(model, pictures[0]) if pictures else {}
    check_fits(heard.bytes, "The second moments of what layers read")
    slopes = _slopes(model, layers, pictures)
    with _still(model), torch.no_grad(), heard.listening():
        device = next(model.parameters()).device
        for x in console.track(pictures, "reading layers"):
            model(x.to(device))
    known = [path for path in layers if path in heard.counts and path in slopes]
    return {path: heard.reading(path, slopes[path], behind.get(path, "")) for path in known}


@contextmanager
def _still(model: nn.Module) -> Iterator[None]:
    with modes_kept(model):
        model.eval()
        yield


def _slopes(model: nn.Module, layers: Mapping[str, Layer], pictures: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return by how much the answers move, squared, if what a layer writes moves by one at every position.

    Estimated with random signs of the answers, as the criterion ``jacobian`` does.
    """
    found: dict[str, Tensor] = {}
    samples, generator = 0, torch_stream(0, "lighten/signs")
    device = next(model.parameters()).device

    def listening(path: str) -> Callable[[nn.Module, Any, Tensor], None]:
        linear = isinstance(model.get_submodule(path), nn.Linear)

        def moved(grad: Tensor) -> None:
            power = (grad if linear else grad.movedim(1, -1)).flatten(0, -2).double().square().sum(0).cpu()
            found[path] = found[path] + power if path in found else power

        def wrote(module: nn.Module, _: Any, y: Tensor) -> None:
            if y.requires_grad:
                y.register_hook(moved)  # which hears of the value as it is now, whatever is done in place

        return wrote

    few = [part for x in pictures for part in x.split(AT_ONCE)][: SLOPES // AT_ONCE]
    with _still(model), ExitStack() as stack:
        for path in layers:
            stack.enter_context(model.get_submodule(path).register_forward_hook(listening(path)))
        stack.enter_context(torch.enable_grad())
        for x in console.track(few, "following answers"):
            x = x.to(device).detach().requires_grad_()
            outputs = answers(model(x))
            signs = [2.0 * torch.randint(0, 2, y.shape, generator=generator).to(y) - 1 for y in outputs]
            torch.autograd.grad(outputs, x, signs, allow_unused=True)
            samples += len(x)
    return {path: power / max(samples, 1) for path, power in found.items()}


class _Heard:
    """Sums over the patches that layers read, while a model runs."""

    def __init__(self, model: nn.Module, layers: Mapping[str, Layer]) -> None:
        self.counts: dict[str, int] = {}
        self._model, self._sums, self._seconds = model, dict[str, Tensor](), dict[str, Tensor]()
        self._specs = {path: read(model.get_submodule(path), path) for path in layers}
        self._layers = {path: self._bare(path, layer) for path, layer in layers.items()}
        self._generator = torch_stream(0, "lighten/positions")

    def _bare(self, path: str, layer: Layer) -> Layer:
        """Return the layer as what reads padded pictures, all channels at once."""
        spec = self._specs[path]
        if spec.kind == "linear":
            return replace(layer, kernel=(), groups=1)
        return replace(
            layer, kernel=spec.kernel, stride=spec.stride, dilation=spec.dilation, padding=(0, 0), groups=1
        )  # fmt: skip

    @property
    def bytes(self) -> int:
        """What the second moments take, with the one that is being added."""
        sizes = [8 * (spec.in_channels * spec.taps) ** 2 for spec in self._specs.values()]
        return sum(sizes) + 2 * max(sizes, default=0)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear the layers."""
        with ExitStack() as stack:
            for path in self._layers:
                stack.enter_context(self._model.get_submodule(path).register_forward_hook(self._hook(path)))
            yield

    def _hook(self, path: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def wrote(module: nn.Module, args: tuple[Any, ...], y: Tensor) -> None:
            rows = self._rows(path, args[0], y)
            second = (rows.T @ rows).double().cpu()
            total = rows.double().sum(0).cpu()
            if path in self.counts:
                self.counts[path] += len(rows)
                self._sums[path] += total
                self._seconds[path] += second
            else:
                self.counts[path], self._sums[path], self._seconds[path] = len(rows), total, second

        return wrote

    def _rows(self, path: str, x: Tensor, y: Tensor) -> Tensor:
        """Return patches at positions drawn from each picture."""
        spec, layer = self._specs[path], self._layers[path]
        positions = y[0].numel() // spec.out_channels
        picks = drawn(len(x), positions, self._generator).to(x.device)
        if spec.kind != "linear":
            high, wide = sides(spec)
            if any((*high, *wide)):
                x = F.pad(x, (*wide, *high), "constant" if spec.padding_mode == "zeros" else spec.padding_mode)
        return patches(x, -1, layer, picks).flatten(1).float()

    def reading(self, path: str, slopes: Tensor, norm: str) -> Reading:
        """Return what was heard of a layer: about the mean where a bias or the ``norm`` behind can take that."""
        count = self.counts[path]
        mean, second = self._sums[path] / count, self._seconds[path] / count
        if not norm and getattr(self._model.get_submodule(path), "bias", None) is None:
            mean = torch.zeros_like(mean)
        return Reading(Patches(mean, second - torch.outer(mean, mean)), slopes, norm)
