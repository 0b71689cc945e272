"""Reference networks that keep the parameter names of the published ones, so that their weights load.

A network is built by calling its name; nothing is downloaded. Names are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penjing.zoo.digits import digits_net
    from penjing.zoo.krizhevsky import alexnet
    from penjing.zoo.resnet import resnet18, resnet20, resnet32, resnet34, resnet44, resnet50, resnet56, resnet110
    from penjing.zoo.vgg import vgg16, vgg16_bn, vgg16_bn_wide
    from penjing.zoo.weights import build, builder_of, load_weights

__all__ = [
    "alexnet",
    "build",
    "builder_of",
    "digits_net",
    "load_weights",
    "resnet18",
    "resnet20",
    "resnet32",
    "resnet34",
    "resnet44",
    "resnet50",
    "resnet56",
    "resnet110",
    "vgg16",
    "vgg16_bn",
    "vgg16_bn_wide",
]

BUILDERS = {
    "alexnet": "krizhevsky",
    "digits_net": "digits",
    "resnet18": "resnet",
    "resnet20": "resnet",
    "resnet32": "resnet",
    "resnet34": "resnet",
    "resnet44": "resnet",
    "resnet50": "resnet",
    "resnet56": "resnet",
    "resnet110": "resnet",
    "vgg16": "vgg",
    "vgg16_bn": "vgg",
    "vgg16_bn_wide": "vgg",
}
"""Each network's builder and the file it lives in."""

_HOMES = {**BUILDERS, "build": "weights", "builder_of": "weights", "load_weights": "weights"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
