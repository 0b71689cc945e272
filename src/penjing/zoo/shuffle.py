"""How channels are shuffled between the groups of a network."""

from __future__ import annotations

import torch

from penjing.factors.layer import Pick


def interleaved(channels: int, parts: int) -> Pick:
    """Return the module that takes the first channel of each part, then the second of each, and so on.

    The order is a buffer, which a cut renumbers, so that no channel is tied to another by it. Interleaving by ``parts``
    and then by ``channels // parts`` gives the channels as they were.

    >>> interleaved(6, 2).index.tolist(), interleaved(6, 3).index.tolist()
    ([0, 3, 1, 4, 2, 5], [0, 2, 4, 1, 3, 5])
    """
    return Pick(torch.arange(channels).view(parts, -1).T.flatten(), channels)
