"""Steps that are a cut in other words."""

from __future__ import annotations

from typing import Any

from penjing.steps.factorize import factorize
from penjing.steps.lighten import lighten


def as_cut(step: Any) -> Any:
    """Return the ``prune`` that a step stands for where a budget decides; any other step as it is."""
    stands = isinstance(step, lighten) or (isinstance(step, factorize) and step.ranks is None)
    return step.as_prune() if stands else step
