"""Prove that the exported file computes what the model computes."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils import _pytree as tree

from penjing.core.errors import ParityError, PenjingError
from penjing.exporting import early
from penjing.exporting.blame import run_error
from penjing.exporting.inputs import with_batch
from penjing.exporting.modes import evaluating
from penjing.exporting.session import as_feeds, fixed_batch, run, samples_in, session
from penjing.graph.exits import Exiting

ROUNDINGS = 20
"""How many units in the last place of the largest output two orders of summation may differ by in half precision."""


@dataclass(frozen=True)
class Parity:
    """How far apart two forms of one model are.

    ``absolute`` is the largest difference of any output, ``relative`` the same over that output's largest value.
    ``noise`` is the root mean square of the differences over that of the output, the largest of any output.
    ``agree`` is the share of samples whose largest score is in the same place, None without scores. ``samples``
    counts what was compared.
    """

    relative: float
    absolute: float
    samples: int
    agree: float | None
    noise: float

    @property
    def sqnr(self) -> float:
        """The ratio of signal to noise. Units: dB."""
        return -20 * math.log10(self.noise) if self.noise else math.inf


def parity(model: nn.Module, path: str | os.PathLike[str], batches: Iterable[Any]) -> Parity:
    """Compare a model in evaluation mode with its file, on real inputs.

    A batch is the input tensor, a sequence of inputs (what the file does not read, such as labels, is left out), or
    a mapping by name. Each is compared as it comes and, where the file's batch is open, the first sample of the first
    also alone. The model's modes are restored. Of a network that answers early, pictures are left out for which
    rounding may decide where (``penjing.exporting.early.decided``).

    Raises: ParityError when the outputs differ in number or shape, or there is nothing to compare.
    """
    running = _opened(model, path)
    if isinstance(model, Exiting) and model.early:
        batches = early.decided(model, batches)
    pairs: list[list[tuple[NDArray[Any], NDArray[Any]]]] = []
    samples = 0
    with evaluating(model):
        for inputs in batches if fixed_batch(running) else _with_a_single(batches):
            feeds = as_feeds(running, inputs)
            ours, theirs = _outputs(model, inputs, len(feeds)), run(running, feeds)
            if [a.shape for a in ours] != [b.shape for b in theirs]:
                raise ParityError(
                    f"{os.fspath(path)} returns {[list(b.shape) for b in theirs]} where the model returns "
                    f"{[list(a.shape) for a in ours]}; is it the file of another model?"
                )
            pairs.append(list(zip(ours, theirs, strict=True)))
            samples += samples_in(feeds)
    if not samples:
        raise ParityError("There is nothing to compare: no batch with samples was given.")
    differences = [_difference(list(pair)) for pair in zip(*pairs, strict=True)]
    # NumPy's maximum, unlike Python's, is not a number when one value is none.
    absolute, relative = np.max(differences, axis=0).tolist()
    noise = float(np.max([_noise(list(pair)) for pair in zip(*pairs, strict=True)]))
    return Parity(relative, absolute, samples, _agreement([pair[0] for pair in pairs]), noise)


def check_parity(
    model: nn.Module, path: str | os.PathLike[str], batches: Iterable[Any], tolerance: float = 1e-4
) -> Parity:
    """Return the parity of a model and its file.

    Raises: ParityError when the relative difference is above what is ``allowed``, or not a number.
    """
    found, tolerance = parity(model, path, batches), allowed(model, tolerance)
    if not found.relative <= tolerance:
        same = "" if found.agree is None else f"; {found.agree:.1%} of the answers agree"
        raise ParityError(
            f"{os.fspath(path)} differs from the model by {found.relative:.2g} of its largest output on "
            f"{found.samples} samples, {tolerance:g} is allowed{same}. Export again from this very model; "
            "if that does not help, look for random operations or decisions on tensor values in its forward."
        )
    return found


def check_likeness(
    model: nn.Module, path: str | os.PathLike[str], batches: Iterable[Any], tolerance: float, advice: str
) -> Parity:
    """Return the parity of a model and a file that rounds on the way, so that single values may tip over.

    Raises: ParityError, with the ``advice``, when the noise is above ``tolerance``, or not a number.
    """
    found = parity(model, path, batches)
    if not found.noise <= tolerance:
        same = "" if found.agree is None else f"; {found.agree:.1%} of the answers agree"
        raise ParityError(
            f"{os.fspath(path)} differs from the model by {found.noise:.1%} of its outputs (root mean square) on "
            f"{found.samples} samples, {tolerance:.1%} is allowed{same}. {advice}"
        )
    return found


def allowed(model: nn.Module, tolerance: float) -> float:
    """Return the difference that is allowed: of a network in half precision no less than what rounding makes of it."""
    rounding = max((torch.finfo(dtype).eps for dtype in _precisions(model)), default=0.0)
    return max(tolerance, ROUNDINGS * rounding) if rounding > torch.finfo(torch.float32).eps else tolerance


def _opened(model: nn.Module, path: str | os.PathLike[str]) -> Any:
    """Return a session of the file.

    Raises: PenjingError, which names the precision where that may be why it cannot be opened.
    """
    try:
        return session(path)
    except PenjingError as error:
        unusual = sorted(str(dtype).removeprefix("torch.") for dtype in _precisions(model) - {torch.float32})
        if not unusual:
            raise
        raise PenjingError(
            f"ONNX Runtime does not compute this network in {' and '.join(unusual)}; pass model.float(). {error}"
        ) from None


def _precisions(model: nn.Module) -> set[torch.dtype]:
    return {tensor.dtype for tensor in (*model.parameters(), *model.buffers()) if tensor.dtype.is_floating_point}


def _with_a_single(batches: Iterable[Any]) -> Iterator[Any]:
    for i, inputs in enumerate(batches):
        if i == 0:
            (single,), _ = with_batch(((_tensors(inputs),), {}), 1)
            yield single
        yield inputs


def _outputs(model: nn.Module, inputs: Any, count: int) -> list[NDArray[Any]]:
    """Run the model on as many tensors as the file reads, and the numbers between them."""
    inputs = _tensors(inputs, next((t.device for t in (*model.parameters(), *model.buffers())), None))
    try:
        if isinstance(inputs, Mapping):
            result = model(**inputs)
        else:
            result = model(*_first(inputs, count) if isinstance(inputs, Sequence) else [inputs])
    except Exception as error:
        raise run_error(model, "the inputs to compare on", error) from error
    return [leaf.cpu().numpy() for leaf in tree.tree_leaves(result) if isinstance(leaf, Tensor)]


def _first(inputs: Sequence[Any], count: int) -> list[Any]:
    """Return what comes before tensor number ``count``, counted from 0."""
    at = [i for i, value in enumerate(inputs) if isinstance(value, Tensor)]
    return list(inputs[: at[count]] if count < len(at) else inputs)


def _tensors(inputs: Any, device: torch.device | None = None) -> Any:
    arrays = (Tensor, np.ndarray)
    return tree.tree_map(lambda x: torch.as_tensor(x, device=device) if isinstance(x, arrays) else x, inputs)


def _difference(pairs: list[tuple[NDArray[Any], NDArray[Any]]]) -> tuple[float, float]:
    """Return the absolute and relative difference of one output over all batches."""
    with np.errstate(invalid="ignore"):  # infinity less infinity: a difference that is no number is the answer
        gaps = [np.abs(a.astype(np.float64) - b.astype(np.float64)) for a, b in pairs if a.size]
    if not gaps or not (absolute := float(np.max([gap.max() for gap in gaps]))):
        return 0.0, 0.0
    largest = float(np.max([np.abs(a).max() for a, _ in pairs if a.size]))
    return absolute, absolute / largest if largest else math.inf


def _noise(pairs: list[tuple[NDArray[Any], NDArray[Any]]]) -> float:
    """Return the root mean square of the differences of one output over that of the output."""
    whole = math.fsum(float(np.square(a.astype(np.float64)).sum()) for a, _ in pairs)
    with np.errstate(invalid="ignore"):
        apart = math.fsum(float(np.square(a.astype(np.float64) - b.astype(np.float64)).sum()) for a, b in pairs)
    return math.sqrt(apart / whole) if whole else math.inf if apart else 0.0


def _agreement(pairs: list[tuple[NDArray[Any], NDArray[Any]]]) -> float | None:
    if any(a.ndim < 2 or a.shape[1] < 2 for a, _ in pairs):
        return None
    same = [(a.argmax(axis=1) == b.argmax(axis=1)).ravel() for a, b in pairs]
    return float(np.concatenate(same).mean())
