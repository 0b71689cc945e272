"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math

from penjing.core.errors import TrainError


def learning_rate(step: int, total: int, peak: float, warmup: float, final: float = 0.0) -> float:
    """Return the learning rate of optimiser step ``step`` (from 0) out of ``total``: linear rise, then half a cosine.

    ``warmup`` is the fraction of the steps that rise; the first step after them runs at ``peak``, and ``final`` is
    what a step number ``total`` would have.

    Raises: TrainError when ``total`` is not positive or ``warmup`` is outside [0, 1).

    Paper: Loshchilov and Hutter, SGDR, ICLR 2017, eq. 5, without restarts; the warm-up is Goyal et al., Accurate,
    Large Minibatch SGD, 2017, section 2.2.

    >>> [round(learning_rate(step, 10, 1.0, 0.2), 3) for step in (0, 1, 2, 6, 10)]
    [0.333, 0.667, 1.0, 0.5, 0.0]
    """
    if total < 1:
        raise TrainError(f"A schedule needs at least 1 step, not {total}.")
    if not 0 <= warmup < 1:
        raise TrainError(f"warmup is a fraction of the steps, from 0 to below 1; got {warmup}.")
    rising = round(warmup * total)
    if step < rising:
        return peak * (step + 1) / (rising + 1)
    done = min((step - rising) / max(total - rising, 1), 1.0)
    return final + (peak - final) * (1 + math.cos(math.pi * done)) / 2
