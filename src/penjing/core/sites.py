"""Sites: sets of units of one kind, of which a plan says which stay, and notes on what may not go.

A *unit* is the smallest thing that may go: a channel together with everything that must go with it, a single weight, a
rank, a bit, a block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penjing.core.units import Ints


@dataclass(frozen=True, eq=False)
class Slot:
    """Where a site's units lie in one tensor.

    ``index[i]`` is a position along ``axis`` of ``tensor`` (a parameter or buffer, by its state-dict name; with axis -1
    a position in the flattened tensor), and ``unit[i]`` the unit, counted inside the site, that owns it; all units own
    equally many. ``role`` is ``"out"`` where a convolution or linear layer writes the units, ``"in"`` where one reads
    them, and ``"tied"`` elsewhere (batch norm, bias, PReLU).
    """

    tensor: str
    axis: int
    role: str
    index: Ints
    unit: Ints


@dataclass(frozen=True, eq=False)
class Site:
    """A place in the model with ``size`` units, of which some may go.

    ``ids`` are the graph-wide numbers of the units, in the order of the site; ``step`` is the multiple that kept
    counts are rounded to, ``least`` the smallest count allowed (0 where the whole site may go), and ``width`` how many
    channels of one layer a unit spans at most. ``rewrite`` is what changes it; where it is empty, the one that a plan
    is made for. ``within`` names the site, if any, that takes this one with it when nothing of it stays: the block
    that channels lie in. ``most`` is the largest count short of the whole that is worth having, 0 where all are: a
    factorised layer of more ranks costs more than the layer. ``order`` tells in which order units stay where
    their scores do not: of options, keeping n means the first n, of which the last is taken.
    """

    name: str
    kind: str
    size: int
    slots: tuple[Slot, ...]
    ids: Ints
    step: int = 1
    least: int = 1
    width: int = 1
    rewrite: str = ""
    within: str = ""
    most: int = 0
    order: Ints | None = None

    def slots_with(self, *roles: str) -> list[Slot]:
        """Return the slots with one of these roles."""
        return [slot for slot in self.slots if slot.role in roles]

    @property
    def fewest(self) -> int:
        """The smallest count a plan may keep: a multiple of ``step``, or the whole site where it has none.

        >>> import numpy as np
        >>> [Site("conv", "channels", 6, (), np.arange(6), step=4, least=n).fewest for n in (0, 1, 5)]
        [0, 4, 6]
        """
        count = -(-self.least // self.step) * self.step
        return count if count <= self._most else self.size

    @property
    def _most(self) -> int:
        """The largest multiple of ``step`` short of the whole that a plan may keep."""
        return min(self.most or self.size - 1, self.size - 1) // self.step * self.step

    def allowed(self, count: float) -> int:
        """Return the largest count a plan may keep that does not exceed ``count``, or else the fewest.

        >>> import numpy as np
        >>> site = Site("conv", "channels", 20, (), np.arange(20), step=8)
        >>> [site.allowed(n) for n in (3, 8, 17, 20)]
        [8, 8, 16, 20]
        >>> ranks = Site("conv/rank", "ranks", 64, (), np.arange(64), step=8, most=30)
        >>> [ranks.allowed(n) for n in (3, 20, 31, 63, 64)]
        [8, 16, 24, 24, 64]
        """
        if count >= self.size:
            return self.size
        return max(min(int(count) // self.step * self.step, self._most), self.fewest)

    def above(self, count: int, step: int) -> int:
        """Return the next larger count in multiples of ``step`` that a plan may keep, the whole at the end."""
        next_ = (count // step + 1) * step
        return next_ if next_ <= (self.most or self.size) else self.size

    def below(self, count: int) -> int:
        """Return the next smaller count a plan may keep, the fewest at the end."""
        return max(min((count - 1) // self.step * self.step, self._most), self.fewest)


def inside(sites: Sequence[Site]) -> dict[str, frozenset[str]]:
    """Return, by the name of each site that takes others with it, the names of all that lie within it, however deep.

    >>> import numpy as np
    >>> named = {"block": "", "conv1": "block", "head": "gone"}
    >>> inside([Site(name, "", 1, (), np.arange(1), within=outer) for name, outer in named.items()])
    {'block': frozenset({'conv1'})}
    """
    outer = {site.name: site.within for site in sites}
    found: dict[str, set[str]] = {}
    for site in sites:
        name = site.within
        while name in outer and site.name not in found.setdefault(name, set()):
            found[name].add(site.name)
            name = outer[name]
    return {name: frozenset(inner) for name, inner in found.items()}


@dataclass(frozen=True)
class Note:
    """Something the graph could not free, in the user's words.

    ``where`` names the layer or parameter, ``units`` counts the channels that stay whole because of it, ``why``
    gives the reason and ``line`` the place in the user's own source. ``fixed_by_code`` is true when a constant in
    that source is the reason.
    """

    where: str
    units: int
    why: str
    line: str = ""
    fixed_by_code: bool = False
