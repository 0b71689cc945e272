"""Run one small batch before anything else, and say in one sentence why a model and its data do not fit."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import is_lazy

from penjing.core.errors import DataError, PenjingError, TrainError, reason
from penjing.core.modes import modes_kept
from penjing.core.outputs import tensors_in
from penjing.data.data import Data
from penjing.training.evaluate import class_count, class_scores
from penjing.training.state import Snapshot, chance, device_of

EXAMPLE = "The example"

CALL = "_call_impl"
"""The method of torch.nn.Module that runs a forward; its frames in a traceback tell which module failed."""


def probe(model: nn.Module, given: Data | Sequence[Any]) -> None:
    """Run the first two training pictures, or an example input, through ``model`` in evaluation mode.

    Modes, buffers and the global generators are restored. Given data, the outputs must be the scores of its classes;
    given an example, a tuple of the forward's arguments, any finite tensors will do.

    Raises: TrainError when the model has no weights or broken ones, or its forward fails or returns something else;
    DataError for broken pictures.
    """
    inputs, labels, source = _batch(given)
    _check_weights(model)
    _check_types(model, inputs)
    _check_arguments(model, inputs)
    device = device_of(model)
    moved = tuple(x.to(device) if isinstance(x, Tensor) else x for x in inputs)
    outputs = _forward(model, moved, source)
    found = list(tensors_in(outputs))
    if not found:
        raise TrainError(
            f"{type(model).__name__} returned {type(outputs).__name__} without a tensor in it; return the logits."
        )
    if isinstance(given, Data) and given.labelled:
        scores = class_scores(outputs, labels, class_count(given.train))
        found = [scores]
    if not all(bool(torch.isfinite(tensor).all()) for tensor in found):
        raise TrainError(
            f"{type(model).__name__} returned NaN or infinity for {_told(inputs)}, though its weights and the inputs "
            "are finite; look for a division or a logarithm in its forward, and for the normalisation of the data."
        )


def _batch(given: Data | Sequence[Any]) -> tuple[tuple[Any, ...], int, str]:
    """Return the forward's arguments, how many samples they are, and what messages call them.

    Raises: DataError when there are no pictures, or broken ones.
    """
    if isinstance(given, Data):
        pictures = next(given.train.batches(2), None)
        if pictures is None:
            raise DataError(f"{given.name}, train, has no pictures.")
        inputs: tuple[Any, ...] = (pictures[0],)
        count, source = len(pictures[0]), f"The pictures of {given.name}"
    else:
        inputs = (given,) if isinstance(given, Tensor) else tuple(given)
        count, source = 0, EXAMPLE
    for x in inputs:
        if isinstance(x, Tensor) and x.is_floating_point() and not bool(torch.isfinite(x).all()):
            raise DataError(
                f"{source} hold{'' if count else 's'} NaN or infinity ({_told(inputs)}); look for broken files and for "
                "a deviation of 0 in the normalisation."
            )
    return inputs, count, source


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return chain(model.named_parameters(), model.named_buffers())


def _check_weights(model: nn.Module) -> None:
    """Raise TrainError for the first parameter or buffer that is not there or not finite."""
    for name, tensor in _tensors(model):
        if is_lazy(tensor):
            raise TrainError(f"{name} has no size yet; run one batch through the model, then load its weights.")
        if tensor.is_meta:
            raise TrainError(
                f"{name} is on the meta device, so the model has no weights yet; call model.to_empty(device='cpu') and "
                "load a state dict."
            )
    for name, tensor in _tensors(model):
        if (tensor.is_floating_point() or tensor.is_complex()) and not bool(torch.isfinite(tensor).all()):
            raise TrainError(f"{name} of the model holds NaN or infinity; take an earlier checkpoint.")


def _check_types(model: nn.Module, inputs: Sequence[Any]) -> None:
    """Raise TrainError when no parameter computes in the inputs' precision."""
    wrong = _other_type(model, inputs)
    right = [p for p in model.parameters() if p.is_floating_point() and p.dtype == _precision(inputs)]
    if wrong and not right:
        raise TrainError(wrong)


def _precision(inputs: Sequence[Any]) -> torch.dtype:
    return next((x.dtype for x in inputs if isinstance(x, Tensor) and x.is_floating_point()), torch.float32)


def _other_type(model: nn.Module, inputs: Sequence[Any]) -> str | None:
    """Return what to say of the first parameter of another precision than the inputs'."""
    wanted = _precision(inputs)
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and parameter.dtype != wanted:
            cure = "call model.float()" if wanted == torch.float32 else f"call model.to({wanted})"
            return f"The model's parameters are {parameter.dtype} (first: {name}) and its inputs {wanted}; {cure}."
    return None


def _check_arguments(model: nn.Module, inputs: Sequence[Any]) -> None:
    """Raise TrainError when the forward does not take so many arguments."""
    try:
        signature = inspect.signature(model.forward)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*inputs)
    except TypeError:
        needed = [
            name
            for name, parameter in signature.parameters.items()
            if parameter.default is parameter.empty
            and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        ]
        noun = "input" if len(needed) == 1 else "inputs"
        raise TrainError(
            f"The forward of {type(model).__name__} needs {len(needed)} {noun} ({', '.join(needed) or 'none'}) and is "
            f"given {len(inputs)}; wrap it in a module whose forward takes the pictures alone."
        ) from None


def _forward(model: nn.Module, inputs: tuple[Any, ...], source: str) -> Any:
    """Run the model as evaluation does.

    Raises: TrainError saying where and why it failed.
    """
    buffers = Snapshot([buffer for _, buffer in model.named_buffers()])
    try:
        with modes_kept(model), chance(0, "probe", device_of(model)), torch.no_grad():
            model.eval()
            try:
                return model(*inputs)
            except PenjingError:
                raise
            except Exception as error:
                name, module, x = _innermost(model, error)
                told = _misfit(name, module, x, inputs, source) or _other_type(model, inputs)
                told = told or _wants_names(model, inputs, error)
                raise TrainError(told or f"{name} failed on {_told(inputs)} with {reason(error)}") from error
    finally:
        buffers.restore()


def _innermost(model: nn.Module, error: Exception) -> tuple[str, nn.Module, Any]:
    """Return the last module of the model that an error passed through: its name, itself and what it was called with.

    Hooks would tell the same, but also of modules whose failure the forward caught.
    """
    names = {module: name for name, module in model.named_modules() if name}
    found: tuple[str, nn.Module, Any] = (type(model).__name__, model, None)
    for frame, _ in traceback.walk_tb(error.__traceback__):
        module, args = frame.f_locals.get("self"), frame.f_locals.get("args")
        if isinstance(module, nn.Module) and (module is model or module in names) and frame.f_code.co_name == CALL:
            name = names.get(module, type(model).__name__)
            found = name, module, args[0] if isinstance(args, tuple) and args else None
    return found


def _misfit(name: str, module: nn.Module, x: Any, inputs: Sequence[Any], source: str) -> str | None:
    """Return what to say when a layer got another number of channels or features than it reads."""
    if not isinstance(x, Tensor):
        return None
    pictures = inputs[0] if isinstance(inputs[0], Tensor) else x
    told = f"{source} {'is' if source == EXAMPLE else 'are'} {list(pictures.shape)}"
    if isinstance(module, nn.Linear) and x.ndim and x.shape[-1] != module.in_features:
        return (
            f"{name} reads {module.in_features} features and gets {x.shape[-1]}. {told}; give them the size and "
            "channels the network was built for, or build it for these."
        )
    reads = module.in_channels if isinstance(module, _ConvNd) else None
    reads = module.num_features if isinstance(module, _BatchNorm) else reads
    if reads is None or x.ndim < 2 or x.shape[1] == reads:
        return None
    if x.shape[1] != pictures.shape[1]:
        return f"{name} reads {reads} channels and gets {x.shape[1]}. {told}; look at the layers before it."
    cure = {
        (1, 3): "repeat the grey channel three times (folders: give mean and std of three numbers)",
        (3, 1): "turn the pictures grey (folders: give mean and std of one number each)",
    }.get((int(x.shape[1]), reads), f"give pictures of {reads} channels, channels before height and width")
    return f"{name} reads {reads} channels and gets {x.shape[1]}. {told}; {cure}, or change {name}."


class _Asked(Exception):
    """A forward looked something up by name."""


class _Names(dict[str, Any]):
    """A dict that tells which name is looked up first."""

    def __missing__(self, key: str) -> Any:
        raise _Asked(key)

    def get(self, key: str, default: Any = None) -> Any:
        raise _Asked(key)


def _wants_names(model: nn.Module, inputs: Sequence[Any], error: Exception) -> str | None:
    """Return what to say when the forward looks its input up by name, as in ``batch["image"]``."""
    if len(inputs) != 1 or not isinstance(error, AttributeError | LookupError | TypeError):
        return None
    try:
        model(_Names())
    except _Asked as asked:
        return (
            f"The forward of {type(model).__name__} wants a dict with {asked.args[0]!r} and is given one tensor "
            f"({_told(inputs)}); wrap it in a module whose forward takes the pictures and makes the dict."
        )
    except Exception:
        return None
    return None


def _told(inputs: Sequence[Any]) -> str:
    """Return the types and shapes of the inputs."""
    return ", ".join(
        f"{str(x.dtype).removeprefix('torch.')} {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        for x in inputs
    )
