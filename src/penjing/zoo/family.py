"""Families: networks that differ in a width multiplier alone, made by one builder."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from penjing import zoo
from penjing.core import console
from penjing.core.errors import RecipeError
from penjing.core.importing import find_named
from penjing.core.spec import Spec
from penjing.zoo.pictures import picture
from penjing.zoo.weights import build, builder_of

WIDEST = 2
"""Widths go up to this; nothing wider was published for families of light networks."""

WIDTHS = tuple(sorted({*(n / 20 for n in range(1, 20 * WIDEST + 1)), *(n / 16 for n in range(1, 16 * WIDEST + 1))}))
"""Widths that are looked at: every twentieth, as published, and every sixteenth, which leaves powers of two whole."""

EVEN = 4
"""Channel counts that are no multiple of this leave the fast path of common CPU runtimes."""

FEWEST = 8
"""Widths that are enough to choose from."""

Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Family:
    """The networks of one builder; ``spec`` names it, with the arguments that they all share."""

    spec: Spec

    @classmethod
    def of(cls, arch: str, classes: int | None = None) -> Family:
        """Return the family that a network's name means; ``classes`` is what its members tell apart.

        Raises: RecipeError for a name that there is not, a builder that takes no width or no number of classes, and a
        width or number that the name has already.

        >>> Family.of("mobilenet_v2_cifar", 7).member(0.5)
        'mobilenet_v2_cifar(num_classes=7, width=0.5)'
        """
        spec = Spec.read(arch, RecipeError)
        takes = _parameters(spec)
        if "width" not in takes:
            known = ", ".join(families())
            raise RecipeError(f"{spec.name} takes no width, so it is no family to choose from; those that do: {known}.")
        if "width" in spec.arguments:
            raise RecipeError(f"{arch} has its width already; leave it out, since it is what is looked for.")
        if classes is None:
            return cls(spec)
        if isinstance(classes, bool) or not isinstance(classes, int) or classes < 1:
            raise RecipeError(f"The number of classes is a whole number, 1 or more; got {classes!r}.")
        if "num_classes" not in takes:
            raise RecipeError(f"{spec.name} takes no num_classes, so it cannot be made for {classes} classes.")
        if spec.arguments.get("num_classes", classes) != classes:
            raise RecipeError(f"{arch} says its number of classes itself, and not {classes}; leave one out.")
        return cls(replace(spec, arguments={**spec.arguments, "num_classes": classes}))

    @property
    def picture(self) -> tuple[int, int, int] | None:
        """Channels, height and width of the pictures that it was published for; None for one of the user's own."""
        return picture(self.spec.name) if self.spec.name in zoo.BUILDERS else None

    def member(self, width: float) -> str:
        """Return the name of a member, which ``zoo.build`` takes."""
        return str(replace(self.spec, arguments={**self.spec.arguments, "width": width}))

    def widths(self, asked: Sequence[float] | None = None) -> list[float]:
        """Return the widths whose networks differ, narrowest first; of equal networks the roundest width.

        By default those of ``WIDTHS`` that give every layer a channel, and of them, where that leaves ``FEWEST``, those
        that give no layer a count that is no multiple of 4 where that at width 1 is. Networks are built without their
        weights.

        Raises: RecipeError for a width asked for that is not above zero, or at which there is no network.
        """
        for width in asked or ():
            if isinstance(width, bool) or not isinstance(width, int | float) or not width > 0:
                raise RecipeError(f"A width multiplies channels, so it is a number above 0; got {width!r}.")
        found: dict[Shapes, float] = {}
        for width in console.track(sorted(set(asked or WIDTHS)), f"widths of {self.spec.name}"):
            try:
                shapes = self._shapes(width)
            except RecipeError:
                if asked:
                    raise
                continue
            found[shapes] = min(found.get(shapes, width), width, key=lambda w: (len(f"{w:g}"), w))
        whole = self._shapes(1.0)
        even = sorted(width for shapes, width in found.items() if not _crooked(shapes, whole))
        return sorted(found.values()) if asked or len(even) < FEWEST else even

    def _shapes(self, width: float) -> Shapes:
        with torch.device("meta"):
            return tuple(tuple(p.shape) for p in self.build(width).parameters())

    def build(self, width: float) -> nn.Module:
        """Return a member with new weights, drawn by torch's global generator."""
        return build(self.member(width))


def _crooked(shapes: Shapes, whole: Shapes) -> bool:
    """Tell whether a count is no multiple of 4 where that of the whole network is."""
    pairs = ((n, of) for one, other in zip(shapes, whole, strict=True) for n, of in zip(one, other, strict=True))
    return any(n % EVEN and not of % EVEN for n, of in pairs)


def _parameters(spec: Spec) -> Mapping[str, Any]:
    """Return the parameters of a builder by name.

    Raises: RecipeError for a builder that there is not.
    """
    builder = find_named(builder_of(str(spec)), "builder", RecipeError)
    try:
        return inspect.signature(builder).parameters
    except ValueError:  # some callables written in C have no signature
        return {}


def families() -> list[str]:
    """Return the networks of the zoo that take a width.

    >>> "mobilenet_v2" in families(), "resnet18" in families()
    (True, False)
    """
    return [name for name in zoo.BUILDERS if "width" in inspect.signature(getattr(zoo, name)).parameters]
