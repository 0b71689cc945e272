"""The stages of a network, found by running it once: where its maps become smaller, and what closes each size."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from penjing.core.errors import PlanError, did_you_mean
from penjing.core.modes import modes_kept
from penjing.core.outputs import first_tensor


@dataclass(frozen=True)
class Map:
    """What a layer returns for a picture: ``channels`` of ``size``; ``runs`` is how often it runs in a forward.

    ``convolution`` and ``sequence`` tell what it is, where it is one of these.
    """

    name: str
    channels: int
    size: tuple[int, ...]
    runs: int = 1
    convolution: bool = False
    sequence: bool = False


@dataclass(frozen=True)
class Seen:
    """What running a network showed: the maps in the order they were finished."""

    maps: tuple[Map, ...]
    logits: tuple[int, ...]

    @cached_property
    def outer(self) -> list[Map]:
        """The maps but for those inside a block that goes on to another size, which may be one branch of several.

        Such a block has a forward of its own, and maps of no more than two sizes in it: a whole trunk has more.
        """
        named = {one.name: one for one in self.maps}
        above = {name: [named[a] for a in _above(name) if a in named and not named[a].sequence] for name in named}
        sizes: dict[str, set[tuple[int, ...]]] = {}
        for one in self.maps:
            for block in above[one.name] if one.convolution else ():
                sizes.setdefault(block.name, set()).add(one.size)

        def leads_on(one: Map, block: Map) -> bool:
            return block.size != one.size and len(sizes.get(block.name, ())) <= 2

        return [one for one in self.maps if not any(leads_on(one, block) for block in above[one.name])]

    @cached_property
    def convolutions(self) -> Mapping[tuple[int, ...], int]:
        """How many convolutions write at each size."""
        return Counter(one.size for one in self.outer if one.convolution for _ in range(one.runs))

    @property
    def ends(self) -> list[Map]:
        """The ends of stages: a map of each size above one at which a convolution writes, of layers that run once.

        It is that of the module of the most modules, of equals the last: a whole stage or block; at the last size it is
        the last map.
        """
        found: dict[tuple[int, ...], Map] = {}
        inside = modules_in(one.name for one in self.maps)
        maps = [m for m in self.outer if m.runs == 1 and math.prod(m.size) > 1 and self.convolutions.get(m.size)]
        for one in maps:
            best = found.get(one.size)
            if best is None or one.size == maps[-1].size or inside[one.name] >= inside[best.name]:
                found.pop(one.size, None)
                found[one.size] = one
        return list(found.values())


def _above(name: str) -> Iterator[str]:
    """Yield the names of the modules that a module stands in."""
    while name := name.rpartition(".")[0]:
        yield name


def modules_in(names: Iterable[str]) -> dict[str, int]:
    """Return how many of the modules stand inside each.

    >>> modules_in(("a.b.c", "a.b", "a"))
    {'a.b.c': 0, 'a.b': 1, 'a': 2}
    """
    inside = dict.fromkeys(names, 0)
    for name in inside:
        for above in _above(name):
            if above in inside:
                inside[above] += 1
    return inside


def look(network: nn.Module, x: Tensor) -> Seen:
    """Run a network in evaluation mode and note what its layers return; modes are restored, nothing is left in it.

    What stands inside a convolution or linear layer makes weights, and is passed over.
    """
    named = {name: module for name, module in network.named_modules() if name}
    layers = tuple(f"{name}." for name, module in named.items() if isinstance(module, _ConvNd | nn.Linear))
    found: dict[str, Map] = {}

    def hear(name: str, module: nn.Module, args: Any, output: Any) -> None:
        before = found.pop(name, None)
        if isinstance(output, Tensor):
            found[name] = Map(
                name,
                channels=output.shape[1] if output.ndim > 1 else 1,
                size=tuple(output.shape[2:]),
                runs=1 if before is None else before.runs + 1,
                convolution=isinstance(module, _ConvNd),
                sequence=isinstance(module, nn.Sequential),
            )

    hooks = [m.register_forward_hook(partial(hear, n)) for n, m in named.items() if not n.startswith(layers)]
    try:
        with torch.no_grad(), modes_kept(network):
            logits = first_tensor(network.eval()(x))
    finally:
        for hook in hooks:
            hook.remove()
    return Seen(tuple(found.values()), tuple(logits.shape))


@dataclass(frozen=True)
class Branch:
    """An exit behind the layer ``at``, whose map has ``widths[0]`` channels.

    Block ``i`` makes ``widths[i + 1]`` of them and divides the size by ``strides[i]``; a linear layer tells ``classes``
    apart.
    """

    at: str
    widths: tuple[int, ...]
    strides: tuple[int, ...]
    classes: int


def branches(seen: Seen, layers: Iterable[str] = ()) -> tuple[list[Branch], Map]:
    """Return the exits behind ``layers``, in the order of execution, and the map they all lead to, the deepest.

    By default they stand at the end of every stage but the last; a stem, which is a first stage of one convolution, is
    none, where others are left. An exit has a block for every stage that the network has after it.

    Raises: PlanError for a network that does not return class scores, or has no place, or a layer that is none.
    """
    if len(seen.logits) != 2:
        raise PlanError(
            f"The network returns {list(seen.logits)} for two pictures, and exits answer with the scores of classes, "
            "[pictures, classes]; leave them out."
        )
    ends = seen.ends
    chosen = _named(seen, tuple(layers), ends) if layers else _usual(seen, ends)
    return [_branch(one, ends, seen.logits[1]) for one in chosen], ends[-1]


def _usual(seen: Seen, ends: Sequence[Map]) -> Sequence[Map]:
    if len(ends) < 2:
        raise PlanError(
            "The maps of the network have one size alone, so that there is no stage to put an exit behind; name "
            f"layers, such as layers: [{ends[-1].name if ends else 'block3'}]."
        )
    stem = len(ends) > 2 and seen.convolutions[ends[0].size] == 1
    return ends[1 if stem else 0 : -1]


def _named(seen: Seen, layers: Sequence[str], ends: Sequence[Map]) -> list[Map]:
    maps = {one.name: one for one in seen.maps}
    if not ends:
        raise PlanError("No convolution of the network returns a map, so that there is nothing for an exit to read.")
    for name in layers:
        one = maps.get(name)
        if one is None:
            raise PlanError(f"The network has no layer {name!r} for an exit.{did_you_mean(name, maps)}")
        if len(one.size) != 2 or math.prod(one.size) < 2:
            raise PlanError(
                f"{name} returns no map [channels, height, width], which an exit reads; name a layer before the "
                f"pooling at the end, such as {ends[0].name}."
            )
        if one.runs > 1:
            raise PlanError(
                f"{name} runs {one.runs} times in one forward; an exit stands behind a layer that runs once."
            )
    at = {one.name: i for i, one in enumerate(seen.maps)}
    if late := [name for name in layers if at[name] >= at[ends[-1].name]]:
        raise PlanError(
            f"{late[0]} is the end of the network already, where an exit saves nothing; name a layer before "
            f"{ends[-1].name}."
        )
    return [one for one in seen.maps if one.name in layers]


def _branch(one: Map, ends: Sequence[Map], classes: int) -> Branch:
    """Return an exit that takes a map to the last stage's width, stage by stage."""
    after = [end for end in ends if max(end.size) < max(one.size)] or [ends[-1]]
    path = [one, *after]
    if len(one.size) != 2:
        raise PlanError(f"{one.name} returns a map of {len(one.size)} dimensions; exits read pictures, of two.")
    strides = tuple(max(1, round(max(a.size) / max(b.size))) for a, b in pairwise(path))
    return Branch(one.name, tuple(stage.channels for stage in path), strides, classes)
