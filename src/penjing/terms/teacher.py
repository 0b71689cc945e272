"""A network that others learn from, borrowed for the time of a training."""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from penjing.core.errors import TrainError


class Teacher:
    """Runs a network in evaluation mode and without gradients; its modes and its device are restored.

    ``term`` names who asks, in what is raised.
    """

    def __init__(self, term: str) -> None:
        self._term = term
        self._lent: nn.Module | None = None
        self._network: nn.Module | None = None
        self._modes: dict[nn.Module, bool] = {}
        self._home: torch.device | None = None

    def lend(self, network: nn.Module) -> None:
        """Take this network until ``release``, unless ``hire`` names one."""
        self._lent = network

    def hire(self, own: Any, model: nn.Module) -> nn.Module:
        """Return the network, ``own`` or the lent one, in evaluation mode.

        Raises: TrainError without a network, or when it is the ``model`` being trained.
        """
        network = own if own is not None else self._lent
        if network is None:
            raise TrainError(f"{self._term} needs a teacher: give the network to learn from as its option `teacher`.")
        if not isinstance(network, nn.Module):
            raise TrainError(f"{self._term}: the teacher must be a torch.nn.Module, not {type(network).__name__}.")
        if network is model:
            raise TrainError(f"{self._term}: the teacher is the model being trained; give a copy or another network.")
        for module in network.modules():
            self._modes.setdefault(module, module.training)
        self._network = network.eval()
        return network

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Any:
        """Return what the network says of a batch, under the caller's autocast."""
        network = self._network
        assert network is not None, "hire comes first"
        home = next((t.device for t in chain(network.parameters(), network.buffers())), x.device)
        if home != x.device:
            self._home = self._home or home
            network.to(x.device)
        return network(x)

    def release(self) -> None:
        """Give the network its modes and its device back and forget a lent one."""
        if self._network is not None and self._home is not None:
            self._network.to(self._home)
        for module, training in self._modes.items():
            module.training = training
        self._modes.clear()
        self._network = self._lent = self._home = None
