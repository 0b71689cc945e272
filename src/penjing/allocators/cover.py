"""Which options there are, and which take other sites away: every site is covered by one option, its own or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from penjing.core.units import Floats, Ints

Within = Mapping[int, tuple[int, int]]
"""By site, the site it lies within and the option of that one which takes it away, with all that lies within it."""


@dataclass(frozen=True, eq=False)
class Cover:
    """The options of all sites, those of one site after those of another, and what a choice of them must be.

    Positions count these options. ``outer`` is the site that each lies within and ``taker`` the position that takes it
    away, -1 where there is none. A choice holds one position a site, -1 for a site that is taken away.

    With x a one for each option chosen, choices are what keeps ``members`` x = 1: the row of a site has a one for each
    of its own options and for each option that takes it away. So the sum of any values of a choice is that of
    ``least`` over sites and ``above`` over chosen options, and none of the latter is negative.

    Shapes: site, index [options]; starts, outer, taker [sites].
    """

    site: Ints
    index: Ints
    starts: Ints
    outer: Ints
    taker: Ints

    @classmethod
    def of(cls, options: Sequence[Ints], within: Within) -> tuple[Ints, Cover]:
        """Return the numbers of the sites that have options, and their cover."""
        there = np.array([i for i, mine in enumerate(options) if len(mine)], dtype=np.int64)
        sizes = [len(options[i]) for i in there]
        starts = np.cumsum([0, *sizes])[:-1]
        new = {int(i): row for row, i in enumerate(there)}
        outer, taker = np.full(len(there), -1), np.full(len(there), -1)
        for i, (j, option) in within.items():
            if i in new and j in new:
                outer[new[i]] = new[j]
                found = np.flatnonzero(options[j] == option)
                taker[new[i]] = starts[new[j]] + found[0] if len(found) else -1
        index = np.concatenate([options[i] for i in there]) if len(there) else there
        return there, cls(np.repeat(np.arange(len(there)), sizes), index, starts, outer, taker)

    @cached_property
    def nested(self) -> list[int]:
        """The sites that lie within another, those further out first."""
        return sorted(np.flatnonzero(self.outer >= 0).tolist(), key=lambda site: len(self._above_it(site)))

    def _above_it(self, site: int) -> list[int]:
        """Return the sites that one lies within, and itself before them."""
        chain = [site]
        while self.outer[chain[-1]] >= 0:
            chain.append(int(self.outer[chain[-1]]))
        return chain

    @cached_property
    def taking(self) -> Any:
        """Which options take which sites away, [sites, options]."""
        from scipy.sparse import csr_array

        pairs = [(i, int(self.taker[j])) for i in self.nested for j in self._above_it(i) if self.taker[j] >= 0]
        rows, columns = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
        return csr_array((np.ones(len(pairs)), (rows, columns)), shape=(len(self.starts), len(self.site)))

    @cached_property
    def members(self) -> Any:
        """The constraint on choices, [sites, options]: each row adds up to one."""
        from scipy.sparse import csr_array

        options = np.arange(len(self.site))
        own = csr_array((np.ones(len(options)), (self.site, options)), shape=(len(self.starts), len(options)))
        return own + self.taking if self.nested else own

    def least(self, values: Floats) -> Floats:
        """Return one number a site whose sum is the least that a choice adds up to.

        Shapes: values [options, ...]; returns [sites, ...].
        """
        found: Floats = np.minimum.reduceat(values, self.starts)
        for _ in range(max((len(self._above_it(i)) for i in self.nested), default=1) - 1):
            found = np.minimum.reduceat(values - self.taking.T @ found, self.starts)
        return found

    def above(self, values: Floats, least: Floats) -> Floats:
        """Return what each option adds to the sum of ``least``.

        Shapes: values [options, ...]; least [sites, ...]; returns [options, ...].
        """
        found: Floats = values - least[self.site]
        return found - self.taking.T @ least if self.nested else found

    def complete(self, choice: Ints, usual: Ints) -> Ints:
        """Return a choice in which nothing is chosen at sites that are taken away, and at no other.

        A site that is back takes its ``usual`` option.
        """
        found = choice.copy()
        for i in self.nested:
            if found[self.outer[i]] in (-1, self.taker[i]):
                found[i] = -1
            elif found[i] < 0:
                found[i] = usual[i]
        return found

    def changed(self, choice: Ints, values: Floats, usual: Ints) -> Floats:
        """Return what a choice adds up to more when a site takes another option, for each option.

        An option of a site that is taken away cannot be taken alone: that is infinite.

        Shapes: values [options, ...]; returns [options, ...].
        """
        there = choice >= 0
        held = np.zeros((len(choice), *values.shape[1:]))
        held[there] = values[choice[there]]
        found: Floats = values - held[self.site]
        if self.nested:
            turning = np.isin(np.arange(len(self.site)), self.taker) | np.isin(choice, self.taker)[self.site]
            for option in np.flatnonzero(turning & there[self.site]):
                after = self.turned(choice, int(option), usual)
                found[option] = values[after[after >= 0]].sum(0) - values[choice[there]].sum(0)
            found[~there[self.site]] = np.inf
        return found

    def turned(self, choice: Ints, option: int, usual: Ints) -> Ints:
        """Return the choice in which the site of an option takes it, with what follows from that."""
        found = choice.copy()
        found[self.site[option]] = option
        return self.complete(found, usual)


def emptied(options: Sequence[Ints], within: Within) -> list[Ints] | None:
    """Return the options once every site that has none left is taken away; None where nothing can take it.

    A site that is always taken away has no options, nor has anything within it.
    """
    left = list(options)

    def depth(site: int) -> int:
        return 1 + depth(within[site][0]) if site in within else 0

    for i in sorted(range(len(left)), key=depth, reverse=True):
        if len(left[i]):
            continue
        if i not in within:
            return None
        j, option = within[i]
        left[j] = left[j][left[j] == option]
    for i in sorted(within, key=depth):
        if not len(left[within[i][0]]):
            left[i] = left[i][:0]
    return left
