"""A network that others learn from, borrowed for the time of a training."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, nn

from penjing.core.errors import TrainError


@dataclass(eq=False)
class _Loan:
    """What was promised to give back of one network, to whom, and what it said last; all who borrow it share this.

    It holds the network and its borrowers by name or weakly, or nothing would ever let go of them.
    """

    modes: dict[str, bool]
    home: torch.device | None = None
    borrowers: WeakSet[Teacher] = field(default_factory=WeakSet)
    input: Tensor | None = None
    state: tuple[Any, ...] = ()
    said: Any = None

    def __getstate__(self) -> dict[str, Any]:
        # Weak references cannot be sent to another process, where nobody gives anything back.
        return {**self.__dict__, "borrowers": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, borrowers=WeakSet())

    def forget(self) -> None:
        self.input, self.state, self.said = None, (), None


_loans: WeakKeyDictionary[nn.Module, _Loan] = WeakKeyDictionary()


class Teacher:
    """Runs a network in evaluation mode and without gradients; its modes and its device are restored.

    Several terms may borrow one network: it runs once a batch, and goes back when the last of them releases it.
    ``term`` names who asks, in what is raised.
    """

    def __init__(self, term: str) -> None:
        self._term = term
        self._lent: nn.Module | None = None
        self._network: nn.Module | None = None
        self._loan: _Loan | None = None

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
        if network is not self._network:
            self._give_back()
            loan = _loans.get(network)
            if loan is None:
                loan = _loans[network] = _Loan({name: module.training for name, module in network.named_modules()})
            loan.borrowers.add(self)
            self._loan, self._network = loan, network
        assert self._loan is not None
        self._loan.forget()  # who hires now may listen on the way, and has heard nothing of what was said before
        return network.eval()

    def __call__(self, x: Tensor) -> Any:
        """Return what the network says of a batch, under the caller's autocast; the same batch is not run twice."""
        loan = self._loan
        assert loan is not None, "hire comes first"
        if loan.input is x and loan.state == _state(x):
            return loan.said
        return self.run(x)

    @torch.no_grad()
    def run(self, x: Tensor) -> Any:
        """Run the network whatever was said before; so it does for whoever listens on the way."""
        network, loan = self._network, self._loan
        assert network is not None and loan is not None, "hire comes first"
        home = next((t.device for t in chain(network.parameters(), network.buffers())), x.device)
        if home != x.device:
            loan.home = loan.home or home
            network.to(x.device)
        loan.forget()
        said = network(x)
        loan.input, loan.state, loan.said = x, _state(x), said
        return said

    def release(self) -> None:
        """Give the network back and forget a lent one."""
        self._give_back()
        self._lent = None

    def _give_back(self) -> None:
        network, loan = self._network, self._loan
        self._network = self._loan = None
        if network is None or loan is None:
            return
        loan.borrowers.discard(self)
        if loan.borrowers:
            return
        _loans.pop(network, None)
        loan.forget()
        if loan.home is not None:
            network.to(loan.home)
        for name, module in network.named_modules():
            module.training = loan.modes.get(name, module.training)


def _state(x: Tensor) -> tuple[Any, ...]:
    """Return what else the answer depends on: whether the batch was written to, and the precision asked for."""
    kind = x.device.type
    written = None if x.is_inference() else x._version
    if not torch.amp.is_autocast_available(kind):
        return (written,)
    return written, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
