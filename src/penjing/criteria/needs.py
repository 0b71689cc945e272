"""What criteria need of a site, refused in one clear sentence where it is not there."""

from __future__ import annotations

from penjing.core.errors import PlanError
from penjing.core.types import Site


def only(kind: str, site: Site, criterion: str, instead: str) -> None:
    """Refuse sites of another kind than this one.

    Raises: PlanError naming the site, and ``instead`` as what to use.
    """
    if site.kind != kind:
        raise PlanError(f"{criterion} scores {kind}, but {site.name} is a site of {site.kind}; use {instead}.")
