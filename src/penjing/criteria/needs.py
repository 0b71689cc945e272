"""What criteria need of a site, refused in one clear sentence where it is not there."""

from __future__ import annotations

from penjing.core.errors import PlanError
from penjing.core.sites import Site

BLOCK_SAMPLES = 128
"""How many calibration samples are run without each block."""


def only(kind: str, site: Site, criterion: str, instead: str) -> None:
    """Refuse sites of another kind than this one.

    Raises: PlanError naming the site, and ``instead`` as what to use.
    """
    units(site, criterion)
    if site.kind != kind:
        raise PlanError(f"{criterion} scores {kind}, but {site.name} is a site of {site.kind}; use {instead}.")


def units(site: Site, criterion: str) -> None:
    """Refuse a whole block, which has no weights or activations of its own to rank.

    Raises: PlanError naming the block and what to use.
    """
    if site.kind == "layers":
        raise PlanError(
            f"{criterion} compares units of one layer, but {site.name} is a whole block; use jacobian or taylor."
        )
