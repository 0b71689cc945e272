"""A new network for a budget: the largest of a family, and a recipe that trains it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from penjing import recipe as recipes
from penjing.core.errors import RecipeError
from penjing.data.data import Data
from penjing.data.load import as_data
from penjing.given import target_of
from penjing.largest import Largest, Picture, largest
from penjing.steps.state import Run
from penjing.zoo.family import Family

RECIPE = "recipe.yaml"


def new(
    arch: str,
    budget: Mapping[str, Any] | str,
    *,
    data: Any = None,
    picture: Sequence[int] | None = None,
    classes: int | None = None,
    target: Any = None,
    threads: int | None = None,
    batch: int | None = None,
    widths: Sequence[float] | None = None,
    resolutions: Sequence[int] = (),
    seed: int = 0,
) -> Largest:
    """Find the largest network of a family that meets a budget on a target, by its width and its pictures' side.

    ``arch`` is a network of the zoo that takes a width, such as ``"mobilenet_v2_cifar"``, or a builder of your own,
    ``package.module:build``, that does. Bounds of the ``budget`` are absolute, or relative to the network of width 1.
    Pictures and classes are those of ``data``, as ``penjing.run`` takes it, or ``picture``, channels, height and width,
    and ``classes``, by default what the network was published for. ``widths`` are looked at, by default every
    twentieth and sixteenth up to 2, and pictures of every side in ``resolutions``. Latency on a runtime and the size of
    the file are measured on exported files. The network is not trained. Print what is returned, read its ``model``, or
    ``build`` it.

    Raises: Infeasible when even the smallest costs too much; PenjingError for everything a user can mend.
    """
    made_for, threads, batch = target_of(target, threads, batch)
    loaded = None if data is None else as_data(data, seed=seed)
    family = Family.of(arch, classes_of(loaded, classes))
    sides = [_side(side) for side in resolutions]
    with tempfile.TemporaryDirectory(prefix="penjing-") as scratch:
        run = Run(Path(scratch), {}, seed, threads, batch, target=made_for)
        return largest(family, budget, picture_of(family, loaded, picture), run, widths, sides)


def classes_of(data: Data | None, asked: int | None) -> int | None:
    """Return how many classes the network tells apart; None where nobody says.

    Raises: RecipeError where what is asked for is not what the data has.
    """
    if data is None or not data.labelled:
        return asked
    if asked not in (None, data.num_classes):
        raise RecipeError(f"{data.name} has {data.num_classes} classes, and {asked} are asked for; leave classes out.")
    return data.num_classes


def picture_of(family: Family, data: Data | None, asked: Sequence[int] | None) -> Picture:
    """Return channels, height and width of the pictures.

    Raises: RecipeError where what is asked for is not what the data has, is no size, or nobody says what it is.
    """
    if asked is not None and (len(asked) != 3 or any(isinstance(n, bool) or n < 1 for n in asked)):
        raise RecipeError(f"A picture is channels, height and width, such as 3, 32, 32; got {list(asked)}.")
    if data is not None:
        if asked is not None and tuple(asked) != data.shape:
            raise RecipeError(f"{data.name} has pictures of {list(data.shape)}, and {list(asked)} are asked for.")
        return data.shape
    found = family.picture if asked is None else tuple(asked)
    if found is None:
        raise RecipeError(f"{family.spec} does not say how large its pictures are; give their size, or data.")
    channels, height, width = found
    return channels, height, width


def _side(side: Any) -> int:
    if isinstance(side, bool) or not isinstance(side, int) or side < 1:
        raise RecipeError(f"A resolution is a side in pixels, a whole number above 0; got {side!r}.")
    return side


def write_recipe(
    found: Largest,
    folder: Path,
    keys: Mapping[str, Any],
    epochs: int = recipes.SCRATCH_EPOCHS,
    lr: float = recipes.SCRATCH_LR,
) -> Path:
    """Write a recipe that trains what was found from new weights, exports it, and holds it against the budget.

    ``keys`` are more of the recipe, by their path, ``data`` among them. Relative bounds are written as what they come
    to, since to the recipe the network itself is the original.

    Raises: RecipeError without data, or naming the key that is wrong.
    """
    if not keys.get("data"):
        raise RecipeError("A recipe needs data to train on: give --data, or leave --out away.")
    told = recipes.from_scratch(found.model, found.limits, epochs, lr, taught=bool(keys.get("teacher")))
    side = {"side": found.chosen.picture[-1]} if found.is_resized else {}
    head = {name: told.pop(name) for name in ("penjing", "model")}
    return recipes.write({**head, **recipes.changed({}, {**keys, **side}), **told}, folder / RECIPE)
