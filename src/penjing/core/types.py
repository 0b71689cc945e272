"""The values that travel between the rooms of the house.

A *unit* is the smallest thing that may go: a channel together with everything that must go with it, a single
weight, a rank. A *Site* is a set of units of one kind. A *Plan* says which units of which site stay. All of it is
plain data; only a Rewrite edits a network.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from penjing.core.errors import PlanError, did_you_mean

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]
Kept: TypeAlias = Ints
"""The indices of the units that stay, ascending."""


# ---------------------------------------------------------------------------------------------- the network


def is_gone(units: Ints, gone: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tell, for each unit along an axis (-1: none), whether it goes."""
    found: NDArray[np.bool_] = (units >= 0) & gone[np.maximum(units, 0)]
    return found


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


@dataclass(frozen=True, eq=False)
class Layer:
    """One convolution or linear layer as the graph saw it run; a module called twice gives two layers.

    ``in_units`` and ``out_units`` hold the graph-wide unit of each channel, -1 where the channel has none.
    ``in_channels`` counts what the operator reads (of a linear layer: features). ``positions`` is how many output
    positions one sample has (height times width of a convolution). ``follows`` says that ``groups`` shrinks with
    the channels (depthwise) instead of staying fixed. ``bits`` are those of one of its weights, ``input_bits`` those
    of what it reads; 32 where it is not rounded. ``stored_bits`` are those of all weights with their tables, 0 where
    they are floats. ``inner`` says that the next stage of its chain alone reads what it writes.
    """

    name: str
    kind: str
    weight: str
    bias: str | None
    in_units: Ints
    out_units: Ints
    in_channels: int
    out_channels: int
    groups: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool
    in_size: tuple[int, ...]
    out_size: tuple[int, ...]
    follows: bool = False
    density: float = 1.0
    bits: int = 32
    input_bits: int = 32
    stored_bits: int = 0
    inner: bool = False

    @property
    def positions(self) -> int:
        """How many times one sample applies the kernel."""
        return math.prod(self.in_size if self.transposed else self.out_size)

    @property
    def weights(self) -> int:
        """How many weights the layer has; biases are not counted."""
        return self.in_channels // self.groups * self.out_channels * math.prod(self.kernel)

    @property
    def weight_bytes(self) -> float:
        """Bytes that the weights take up when they are stored."""
        return (self.stored_bits or 32 * self.weights) / 8

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one sample; biases are not counted."""
        return self.positions * self.weights

    def shrunk(self, gone: NDArray[np.bool_]) -> Layer:
        """Return the layer without the units for which ``gone[unit]`` is true."""
        ins = self.in_units[~is_gone(self.in_units, gone)]
        outs = self.out_units[~is_gone(self.out_units, gone)]
        groups = self.groups * len(ins) // self.in_channels if self.follows else self.groups
        return replace(self, in_units=ins, out_units=outs, in_channels=len(ins), out_channels=len(outs), groups=groups)


@dataclass(frozen=True, eq=False)
class Value:
    """One activation of one sample: the units along each labelled dimension, and how long it is alive.

    ``fixed`` is the product of the dimensions without units; ``born`` and ``dies`` are positions in the order of
    execution.
    """

    fixed: int
    units: tuple[Ints, ...]
    born: int
    dies: int

    def elements(self, gone: NDArray[np.bool_]) -> int:
        """How many elements are left when these units go."""
        return self.fixed * math.prod(int((~is_gone(units, gone)).sum()) for units in self.units)


@dataclass(frozen=True, eq=False)
class Pass:
    """One run of an operator without weights over whole activations: a pooling, an addition, a concatenation.

    What is folded into the layer before it (batch norm behind a convolution, an activation function) is no pass.
    ``kind`` is ``"pool"``, ``"elementwise"`` or ``"move"``; ``operator`` its ATen name; ``window`` how many elements
    make one of the output, 0 where all of the input do.
    """

    name: str
    kind: str
    operator: str
    window: int
    reads: tuple[Value, ...]
    writes: Value


@dataclass(frozen=True)
class Traffic:
    """What is left of a pass under a plan: elements of one sample, and operations on them.

    ``layer`` has the shape of a pick or shift in a chain, by which runtimes time it.
    """

    name: str
    kind: str
    operator: str
    in_elements: int
    out_elements: int
    operations: int
    layer: Layer | None = field(default=None, compare=False)


@dataclass(frozen=True, eq=False)
class Chain:
    """Layers with nothing between them but ``passes`` that move values; buffers beside them have so many elements."""

    layers: tuple[Layer, ...]
    buffers: int = 0
    passes: tuple[Traffic, ...] = ()


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


# ------------------------------------------------------------------------------------------------ the decision


@dataclass(frozen=True, eq=False)
class Entry:
    """One decision: this rewrite, at this site, keeps these units."""

    rewrite: str
    site: str
    kept: Kept
    size: int


@dataclass(frozen=True, eq=False)
class Plan:
    """Decisions, in order of site; plain data that can be printed, saved and compared by ``key``."""

    entries: tuple[Entry, ...] = ()

    @classmethod
    def of(cls, rewrite: str, kept: Mapping[str, Sequence[int] | Ints], sites: Sequence[Site]) -> Plan:
        """Build a plan from kept unit indices by site name; sites not named stay whole and are left out.

        ``rewrite`` changes the sites that name none of their own. What lies within a site of which nothing stays goes
        with it, and so is left out as well.

        Raises: PlanError for an unknown site, an index out of range, or an empty choice where something must stay.
        """
        by_name = {site.name: site for site in sites}
        entries = []
        for name, units in kept.items():
            if name not in by_name:
                raise PlanError(f"There is no site {name!r}.{did_you_mean(name, by_name)}")
            site = by_name[name]
            array = np.asarray(units, dtype=np.int64)
            if not (np.diff(array) > 0).all():  # a million weights are mostly in order already
                array = np.unique(array)
            if array.size == 0 and site.least > 0:
                raise PlanError(f"{name} would lose all of its {site.size} units; keep at least {site.least}.")
            if array.size and (array[0] < 0 or array[-1] >= site.size):
                raise PlanError(f"{name} has units 0 to {site.size - 1}; the plan keeps {array[0]}..{array[-1]}.")
            if array.size < site.size:
                entries.append(Entry(site.rewrite or rewrite, name, array, site.size))
        taken: set[str] = set()
        if empty := [entry.site for entry in entries if not len(entry.kept)]:
            taken.update(*(inner for name, inner in inside(sites).items() if name in empty))
        return cls(tuple(entry for entry in entries if entry.site not in taken))

    def of_rewrite(self, name: str) -> dict[str, Kept]:
        """Return the kept units by site of one rewrite."""
        return {entry.site: entry.kept for entry in self.entries if entry.rewrite == name}

    def rewrites(self) -> list[str]:
        """Return the names of the rewrites used, in order of first use."""
        return list(dict.fromkeys(entry.rewrite for entry in self.entries))

    def to_json(self) -> list[dict[str, Any]]:
        """Return the plan as JSON data; long choices are written as runs ``[first, last]``."""
        return [{"rewrite": e.rewrite, "site": e.site, "size": e.size, "kept": _runs(e.kept)} for e in self.entries]

    @classmethod
    def from_json(cls, data: Sequence[Mapping[str, Any]]) -> Plan:
        """Read what ``to_json`` wrote.

        Raises: PlanError when the data has another form.
        """
        try:
            return cls(
                tuple(Entry(str(d["rewrite"]), str(d["site"]), _unruns(d["kept"]), int(d["size"])) for d in data)
            )
        except (KeyError, TypeError, ValueError, IndexError):
            raise PlanError("This is not a plan: each entry is a mapping of rewrite, site, size and kept.") from None

    @property
    def key(self) -> str:
        """A short digest; equal plans have equal keys."""
        return hashlib.sha256(json.dumps(self.to_json()).encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)


def _runs(kept: Ints) -> list[list[int]]:
    """Return the first and last of each run of indices.

    >>> _runs(np.array([0, 1, 2, 5])), _runs(np.arange(0))
    ([[0, 2], [5, 5]], [])
    """
    breaks = np.flatnonzero(np.diff(kept) != 1)
    firsts, lasts = np.r_[kept[:1], kept[breaks + 1]], np.r_[kept[breaks], kept[-1:]]
    return [[int(a), int(b)] for a, b in zip(firsts, lasts, strict=True)]


def _unruns(runs: Sequence[Sequence[int]]) -> Ints:
    parts = [np.arange(int(a), int(b) + 1) for a, b in runs]
    return np.concatenate(parts).astype(np.int64) if parts else np.arange(0, dtype=np.int64)


@dataclass(frozen=True)
class Bound:
    """An upper bound on one cost, already in that cost's own unit; ``asked`` is what the user wrote."""

    cost: str
    limit: float
    asked: str

    def met(self, value: float, slack: float = 1e-9) -> bool:
        """Tell whether ``value`` keeps the bound."""
        return value <= self.limit * (1 + slack)


@dataclass(frozen=True)
class Trial:
    """The costs of one plan, by name."""

    plan: Plan
    costs: Mapping[str, float]

    def __getitem__(self, cost: str) -> float:
        return self.costs[cost]

    def meets(self, bounds: Sequence[Bound]) -> bool:
        """Tell whether every bound on a measured cost is kept."""
        return all(bound.met(self.costs[bound.cost]) for bound in bounds if bound.cost in self.costs)


Search: TypeAlias = Generator[list[Plan], list[Trial], Plan]
"""Yields plans, receives their trials, and returns the plan it chooses."""
