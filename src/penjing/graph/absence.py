"""What the outputs lose when a block is left out: measured, since no gradient tells of so large a step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from penjing.core.modes import modes_kept
from penjing.core.outputs import answers, first_tensor, tensors_in
from penjing.core.sites import Site
from penjing.graph.blocks import take_out
from penjing.graph.graph import Graph
from penjing.graph.judged import logits_of, loss_of
from penjing.graph.program import shell

KEPT = 2**20
"""Numbers that a network returns for a batch; where there are more, it runs again for each block."""

Batches: TypeAlias = Sequence[tuple[Tensor, Tensor | None]]
Change: TypeAlias = Callable[[Any, Any, Tensor, Tensor | None], Tensor]
"""Given what the network returns, what it returns without a block, pictures and labels: the change, one a sample."""


class Absence:
    """Runs a network with and without its blocks on a few batches; the model is left as it was found.

    ``share`` is what part these samples are of all that other scores are taken from.
    """

    def __init__(self, model: nn.Module, graph: Graph, batches: Batches, share: float = 1.0) -> None:
        self.model, self.graph, self.batches, self.share = model, graph, batches, share
        self._usual: dict[int, Any] = {}

    def of_logits(self, site: Site) -> Tensor:
        """Return the squared change of the logits when a block is left out, the mean over samples.

        Shapes: [1], float64.
        """
        return self._mean(site, self._logits_moved)

    def of_loss(self, site: Site) -> Tensor:
        """Return the squared change of the loss when a block is left out, the mean over samples.

        Shapes: [1], float64.
        """
        return self._mean(site, _loss_moved)

    def _logits_moved(self, usual: Any, without: Any, x: Tensor, _: Tensor | None) -> Tensor:
        moved = logits_of(without, len(x), like=usual) - logits_of(usual, len(x))
        squared = moved.double().square().sum(1)
        # Levels of a pyramid are taken relative to the size they have in a batch, which grows with its samples.
        return squared * self.share if len(answers(usual)) > 1 else squared

    def _mean(self, site: Site, change: Change) -> Tensor:
        with torch.no_grad(), modes_kept(self.model):
            self.model.eval()
            smaller = shell(self.model)
            take_out(smaller, [self.graph.block(site.name).module])
            changes = [change(self._returned(i), smaller(x), x, y) for i, (x, y) in enumerate(self.batches)]
        return torch.cat(changes).mean(0, keepdim=True)

    def _returned(self, i: int) -> Any:
        """Return what the network returns for a batch, kept where it is small."""
        if i not in self._usual:
            outputs = self.model(self.batches[i][0])
            if sum(t.numel() for t in tensors_in(outputs)) > KEPT:
                return outputs
            self._usual[i] = outputs
        return self._usual[i]


def _loss_moved(usual: Any, without: Any, x: Tensor, y: Tensor | None) -> Tensor:
    labels = first_tensor(usual).argmax(1) if y is None else y
    moved = loss_of(without, labels, reduction="none") - loss_of(usual, labels, reduction="none")
    return moved.double().reshape(len(x), -1).sum(1).square()
