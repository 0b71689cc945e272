"""The pictures that each network of the zoo is made for."""

from __future__ import annotations

import inspect

from penjing import zoo
from penjing.core.errors import RecipeError, did_you_mean

ODD = {"alexnet": (3, 227, 227), "digits_net": (1, 8, 8), "xception": (3, 299, 299)}
"""Pictures that the number of classes does not tell."""

USUAL = {1000: (3, 224, 224), 10: (3, 32, 32)}
"""Pictures by the number of classes that a builder begins with: ImageNet's and CIFAR's."""


def picture(name: str) -> tuple[int, int, int]:
    """Return channels, height and width of the pictures that a network's counts are told for.

    Raises: RecipeError for a name that the zoo has not.

    >>> picture("mobilenet_v2"), picture("mobilenet_v2_cifar")
    ((3, 224, 224), (3, 32, 32))
    """
    if name not in zoo.BUILDERS:
        raise RecipeError(f"There is no network {name!r} in the zoo.{did_you_mean(name, zoo.BUILDERS)}")
    classes: int = inspect.signature(getattr(zoo, name)).parameters["num_classes"].default
    return ODD.get(name) or USUAL[classes]
