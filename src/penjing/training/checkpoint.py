"""Keep what a training needs to go on where it was stopped, to the bit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from penjing.core.errors import ResumeError
from penjing.core.files import write_whole


@dataclass(frozen=True)
class Checkpoint:
    """Where a training keeps itself, and after how many steps; at the end of every epoch in any case.

    With several processes, whose batch norms differ within an epoch, at the ends of epochs alone.
    """

    path: Path
    every: int = 200

    def save(self, groups: Mapping[str, Sequence[Tensor]], facts: Mapping[str, Any]) -> None:
        """Write tensors, by group and position, and plain facts; the file is whole or the one before.

        Raises: PenjingError when it cannot be written.
        """
        tensors = {
            f"{group}.{i}": tensor.detach().cpu().contiguous()
            for group, members in groups.items()
            for i, tensor in enumerate(members)
        }
        write_whole(self.path, save(tensors, {"facts": json.dumps(facts)}))

    def load(self) -> tuple[dict[str, list[Tensor]], dict[str, Any]] | None:
        """Read what ``save`` wrote; None where there is nothing.

        Raises: ResumeError for a file that is something else.
        """
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, "pt") as file:
                facts: dict[str, Any] = json.loads(file.metadata()["facts"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise ResumeError(
                f"{self.path} is not a training to go on with ({error}); remove it to train this step again."
            ) from None
        groups: dict[str, list[Tensor]] = {}
        for name in sorted(tensors, key=lambda n: (n.rpartition(".")[0], int(n.rpartition(".")[2]))):
            groups.setdefault(name.rpartition(".")[0], []).append(tensors[name])
        return groups, facts


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, list[Tensor]]:
    """Return what the optimiser remembers of each parameter, by kind; nothing before its first step."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    kinds = dict.fromkeys(key for p in parameters for key, value in optimizer.state[p].items() if value is not None)
    return {key: [torch.as_tensor(optimizer.state[p].get(key, ())) for p in parameters] for key in kinds}


def restore_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Sequence[Tensor]]) -> None:
    """Give the optimiser back what ``optimizer_state`` told; a parameter that had nothing of a kind gets nothing."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for key, values in state.items():
        for parameter, value in zip(parameters, values, strict=True):
            if value.shape == parameter.shape and key != "step":
                # Laid out like the parameter, or the next step would round in another order.
                optimizer.state[parameter][key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
            elif value.dim() == 0:
                optimizer.state[parameter][key] = value.clone()


@torch.no_grad()
def put_back(tensors: Sequence[Tensor], saved: Sequence[Tensor], path: Path) -> None:
    """Copy saved tensors into a model's own.

    Raises: ResumeError where they are another model's.
    """
    if [t.shape for t in tensors] != [s.shape for s in saved]:
        raise ResumeError(f"{path} holds the training of another network; remove it to train this step again.")
    for tensor, value in zip(tensors, saved, strict=True):
        tensor.copy_(value)
