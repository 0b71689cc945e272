"""Keep and give back what training changes about a model beside its weights, and the weights when it fails."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from itertools import chain

import torch
from torch import Tensor, nn

from penjing.core.random import derive


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the model's first parameter or buffer, the CPU when it has none."""
    for tensor in chain(model.parameters(), model.buffers()):
        return tensor.device
    return torch.device("cpu")


@contextlib.contextmanager
def placement_kept(model: nn.Module) -> Iterator[None]:
    """Give every parameter and buffer its device and memory layout back when the block ends."""
    before = {name: (tensor.device, tensor.stride()) for name, tensor in _named_tensors(model)}
    try:
        yield
    finally:
        for name, tensor in _named_tensors(model):
            device, stride = before.get(name, (tensor.device, tensor.stride()))
            if tensor.device != device or tensor.stride() != stride:
                home = torch.empty_strided(tensor.shape, stride, dtype=tensor.dtype, device=device)
                tensor.data = home.copy_(tensor.data)


def _named_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return chain(model.named_parameters(), model.named_buffers())


def tensors_of(model: nn.Module, extras: Sequence[nn.Parameter] = ()) -> list[Tensor]:
    """Return every parameter and buffer of the model, then the extras, each once and in a fixed order."""
    tensors = chain(model.parameters(), model.buffers(), extras)
    return list({id(tensor): tensor for tensor in tensors}.values())


class Snapshot:
    """A copy of tensors in memory, to which they can go back."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tensors = list(tensors)
        self.copies = [tensor.detach().clone() for tensor in tensors]

    @torch.no_grad()
    def take(self) -> None:
        """Overwrite the copies with the tensors as they are now."""
        for copy, tensor in zip(self.copies, self._tensors, strict=True):
            copy.copy_(tensor)

    @torch.no_grad()
    def restore(self) -> None:
        """Put the copies back into the tensors."""
        for copy, tensor in zip(self.copies, self._tensors, strict=True):
            tensor.copy_(copy)


@contextlib.contextmanager
def chance(seed: int, name: str, device: torch.device) -> Iterator[None]:
    """Let dropout and initialisers draw from the stream of this name; the global generators go on undisturbed.

    PyTorch's dropout takes no generator, hence the detour.
    """
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(derive(seed, name))
        yield
