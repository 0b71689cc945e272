"""Which layers of two networks belong together, and what both compute there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from penjing.core.errors import TrainError, did_you_mean
from penjing.graph.stages import modules_in
from penjing.terms.teacher import Teacher

Layers: TypeAlias = str | tuple[str, ...] | Mapping[str, str]
"""Layers by name: one for both networks, ``model=teacher`` for two, or a mapping of the model's to the teacher's."""


class Pair(NamedTuple):
    """A layer of the model and the one of the teacher that it is compared with."""

    own: str
    theirs: str


class Heard(NamedTuple):
    """What a pair of layers returned for a batch: ``own`` in the model, ``theirs`` in the teacher."""

    pair: Pair
    own: Tensor
    theirs: Tensor


Finding: TypeAlias = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], tuple[Pair, ...]]
"""Given what the layers of both networks returned, in the order they ended: which to compare."""


def pairs_of(layers: Layers) -> tuple[Pair, ...]:
    """Return the pairs that are named.

    >>> pairs_of(("layer1", "layer2=features.6"))
    (Pair(own='layer1', theirs='layer1'), Pair(own='layer2', theirs='features.6'))
    """
    if isinstance(layers, Mapping):
        return tuple(Pair(own, theirs) for own, theirs in layers.items())
    names = (layers,) if isinstance(layers, str) else layers
    halves = [[half.strip() for half in name.split("=", 1)] for name in names]
    return tuple(Pair(half[0], half[-1]) for half in halves)


class Ears:
    """Keeps what modules of a network returned in its last run, in the order they ended, and the run's input.

    What stands inside a convolution or linear layer makes weights, and is not listened at.
    """

    def __init__(self, network: nn.Module) -> None:
        modules = {name: module for name, module in network.named_modules() if name}
        layers = tuple(f"{name}." for name, module in modules.items() if isinstance(module, _ConvNd | nn.Linear))
        self.modules = {name: module for name, module in modules.items() if not name.startswith(layers)}
        self.heard: dict[str, Tensor] = {}
        self.input: Tensor | None = None
        self._hooks: list[Any] = []
        self._root = network.register_forward_pre_hook(self._begin)

    def listen(self, names: Iterable[str]) -> None:
        """Listen at these modules from now on, and at no others."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = [self.modules[name].register_forward_hook(partial(self._hear, name)) for name in names]

    def close(self) -> None:
        """Stop listening and forget."""
        self.listen(())
        self._root.remove()
        self.heard, self.input = {}, None

    def _begin(self, _: nn.Module, args: tuple[Any, ...]) -> None:
        self.heard, self.input = {}, next((a for a in args if isinstance(a, Tensor)), None)

    def _hear(self, name: str, _: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            self.heard.pop(name, None)
            self.heard[name] = output


class Between:
    """Listens at a model and its teacher, at all layers first, and from the first batch on at those to compare.

    ``find`` chooses these where no ``layers`` are named. ``term`` names who asks, in what is raised. Of a layer that
    ``left`` names, the teacher's other channels are not heard where the model's layer of that name is compared with it.
    """

    def __init__(self, term: str, find: Finding) -> None:
        self._term, self._find = term, find
        self._ears: tuple[Ears, Ears] | None = None
        self._layers: tuple[Pair, ...] = ()
        self.left: dict[str, Tensor] = {}
        self.pairs: tuple[Pair, ...] | None = None

    def listen(self, model: nn.Module, teacher: nn.Module, layers: Layers) -> None:
        """Begin to listen.

        Raises: TrainError for a layer that either network lacks, or a teacher whose answers alone are there.
        """
        self.close()
        if getattr(teacher, "answers_alone", False):
            raise TrainError(
                f"{self._term} listens to what the teacher computes on the way, and with views its answers alone are "
                "written down: leave views out, or take terms of the outputs, such as soft_targets, dkd and dist."
            )
        self._layers = pairs_of(layers)
        self._ears = own, theirs = Ears(model), Ears(teacher)
        for pair in self._layers:
            for whose, ears, name in (("model", own, pair.own), ("teacher", theirs, pair.theirs)):
                if name not in ears.modules:
                    missing = f"{self._term}: the {whose} has no layer {name!r}."
                    raise TrainError(f"{missing}{did_you_mean(name, ears.modules)}")
        own.listen([pair.own for pair in self._layers] or own.modules)
        theirs.listen([pair.theirs for pair in self._layers] or theirs.modules)

    def hear(self, x: Tensor, teacher: Teacher) -> list[Heard]:
        """Return what both networks computed for ``x``, which the model has run; the teacher runs if it has not yet.

        Raises: TrainError for a named layer that returns no tensor.
        """
        assert self._ears is not None, "listen comes first"
        own, theirs = self._ears
        if theirs.input is not x:
            teacher.run(x)
        if self.pairs is None:
            narrowed = {name: self._narrowed(Pair(name, name), heard) for name, heard in theirs.heard.items()}
            self.pairs = self._layers or self._find(own.heard, narrowed)
            own.listen(dict.fromkeys(pair.own for pair in self.pairs))
            theirs.listen(dict.fromkeys(pair.theirs for pair in self.pairs))
        found = []
        for pair in self.pairs:
            for whose, ears, name in (("model", own, pair.own), ("teacher", theirs, pair.theirs)):
                if name not in ears.heard:
                    raise TrainError(
                        f"{self._term}: {name} returns no tensor in the {whose}, or is not run; name another layer."
                    )
            found.append(Heard(pair, own.heard[pair.own], self._narrowed(pair, theirs.heard[pair.theirs])))
        return found

    def _narrowed(self, pair: Pair, theirs: Tensor) -> Tensor:
        """Return of what the teacher's layer computed the channels that the model's layer of that name has."""
        left = self.left.get(pair.theirs)
        if left is None or pair.own != pair.theirs or theirs.ndim < 2 or theirs.shape[1] != len(left):
            return theirs
        left = self.left[pair.theirs] = left.to(theirs.device)
        return theirs[:, left]

    def close(self) -> None:
        """Stop listening and forget."""
        for ears in self._ears or ():
            ears.close()
        self._ears, self.pairs = None, None


def alike(own: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> tuple[Pair, ...]:
    """Pair, at each spatial size above one, the last layer that returns the same ``[n, c, ...]`` in both networks."""
    same = {name: tensor for name, tensor in own.items() if name in theirs and tensor.shape == theirs[name].shape}
    return tuple(Pair(name, name) for name in _stages(same).values())


def ends(own: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> tuple[Pair, ...]:
    """Pair the ends of stages at each spatial size above one that both networks have; channels and names may differ.

    That is the module of the most modules that returns this size, of equals the last: a stage or block, and not what
    the next block computes before it goes on to a smaller size. Where the networks have no such size in common, their
    stages are paired in order from the end.
    """
    mine, others = (_stages(heard, prefer=modules_in(heard)) for heard in (own, theirs))
    if common := [size for size in mine if size in others]:
        return tuple(Pair(mine[size], others[size]) for size in common)
    from_the_end = zip(reversed(mine.values()), reversed(others.values()), strict=False)
    return tuple(Pair(*names) for names in from_the_end)[::-1]


def middle(own: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> tuple[Pair, ...]:
    """Return the middle one of the pairs of ``ends``, of two the second."""
    found = ends(own, theirs)
    return found[len(found) // 2 : len(found) // 2 + 1]


def _stages(heard: Mapping[str, Tensor], prefer: Mapping[str, int] | None = None) -> dict[tuple[int, ...], str]:
    """Return the most preferred layer of each spatial size above one, of equals the last, in the order they ended."""
    found: dict[tuple[int, ...], str] = {}
    rank = prefer or dict.fromkeys(heard, 0)
    for name, tensor in heard.items():
        size = tuple(tensor.shape[2:])
        if tensor.shape[2:].numel() > 1 and rank[name] >= rank.get(found.get(size, ""), 0):
            found.pop(size, None)
            found[size] = name
    return found


def need_maps(term: str, heard: list[Heard]) -> None:
    """Refuse what cannot be compared place by place.

    Raises: TrainError where there is no pair, and for one that does not return maps in both networks.
    """
    if not heard:
        raise TrainError(
            f"{term} finds no layers to compare: the model or the teacher has none that returns a map larger than one "
            "place. Name pairs, such as layers: [layer1=features.4], the model's first, or leave the term out."
        )
    for pair, own, theirs in heard:
        if own.ndim < 3 or own.ndim != theirs.ndim or len(own) != len(theirs):
            raise TrainError(
                f"{term}: {pair.own} returns {list(own.shape)} in the model, and {pair.theirs} {list(theirs.shape)} in "
                "the teacher; name layers that return maps [n, channels, ...] of the same batch in both."
            )


_POOLS: dict[int, Callable[..., Tensor]] = {
    1: F.adaptive_avg_pool1d,
    2: F.adaptive_avg_pool2d,
    3: F.adaptive_avg_pool3d,
}


def one_size(own: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
    """Return both, ``[n, c, ...]``, the larger one averaged over the places of the smaller, dimension by dimension."""
    size = [min(sizes) for sizes in zip(own.shape[2:], theirs.shape[2:], strict=True)]
    return tuple(  # type: ignore[return-value]
        tensor if list(tensor.shape[2:]) == size else _POOLS[len(size)](tensor, size) for tensor in (own, theirs)
    )


def gap(own: Tensor, theirs: Tensor) -> Tensor:
    """Return ``‖s - t‖² / (‖s‖² + ‖t‖²)``, a scalar in float32; the divisor has no gradient."""
    s, t = own.float(), theirs.float()
    return (s - t).square().sum() / (s.detach().square().sum() + t.square().sum()).clamp(min=1e-12)
