"""Reference networks that keep the parameter names of the published ones, so that their weights load.

A network is built by calling its name; nothing is downloaded. Names are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penjing.zoo.alexnets import alexnet
    from penjing.zoo.densenet import densenet121, densenet_cifar
    from penjing.zoo.digits import digits_net
    from penjing.zoo.mobilenetv1 import mobilenet_v1, mobilenet_v1_cifar
    from penjing.zoo.mobilenetv2 import mobilenet_v2, mobilenet_v2_cifar
    from penjing.zoo.nin import nin_cifar
    from penjing.zoo.pictures import picture
    from penjing.zoo.resnet import (
        resnet18,
        resnet20,
        resnet32,
        resnet34,
        resnet44,
        resnet50,
        resnet56,
        resnet101,
        resnet110,
        resnet152,
    )
    from penjing.zoo.shiftnet import shiftnet20_cifar, shiftnet56_cifar
    from penjing.zoo.shufflenetv1 import shufflenet_v1, shufflenet_v1_cifar
    from penjing.zoo.shufflenetv2 import shufflenet_v2, shufflenet_v2_cifar
    from penjing.zoo.squeezenet import squeezenet1_0, squeezenet1_0_cifar, squeezenet1_1, squeezenet1_1_cifar
    from penjing.zoo.vgg import vgg11, vgg11_bn, vgg13, vgg13_bn, vgg16, vgg16_bn, vgg16_bn_wide, vgg19, vgg19_bn
    from penjing.zoo.weights import build, builder_of, load_weights
    from penjing.zoo.xceptionnet import xception, xception_cifar

__all__ = [
    "alexnet",
    "build",
    "builder_of",
    "densenet121",
    "densenet_cifar",
    "digits_net",
    "load_weights",
    "mobilenet_v1",
    "mobilenet_v1_cifar",
    "mobilenet_v2",
    "mobilenet_v2_cifar",
    "nin_cifar",
    "picture",
    "resnet18",
    "resnet20",
    "resnet32",
    "resnet34",
    "resnet44",
    "resnet50",
    "resnet56",
    "resnet101",
    "resnet110",
    "resnet152",
    "shiftnet20_cifar",
    "shiftnet56_cifar",
    "shufflenet_v1",
    "shufflenet_v1_cifar",
    "shufflenet_v2",
    "shufflenet_v2_cifar",
    "squeezenet1_0",
    "squeezenet1_0_cifar",
    "squeezenet1_1",
    "squeezenet1_1_cifar",
    "vgg11",
    "vgg11_bn",
    "vgg13",
    "vgg13_bn",
    "vgg16",
    "vgg16_bn",
    "vgg16_bn_wide",
    "vgg19",
    "vgg19_bn",
    "xception",
    "xception_cifar",
]

BUILDERS = {
    "alexnet": "alexnets",
    "densenet121": "densenet",
    "densenet_cifar": "densenet",
    "digits_net": "digits",
    "mobilenet_v1": "mobilenetv1",
    "mobilenet_v1_cifar": "mobilenetv1",
    "mobilenet_v2": "mobilenetv2",
    "mobilenet_v2_cifar": "mobilenetv2",
    "nin_cifar": "nin",
    "resnet18": "resnet",
    "resnet20": "resnet",
    "resnet32": "resnet",
    "resnet34": "resnet",
    "resnet44": "resnet",
    "resnet50": "resnet",
    "resnet56": "resnet",
    "resnet101": "resnet",
    "resnet110": "resnet",
    "resnet152": "resnet",
    "shiftnet20_cifar": "shiftnet",
    "shiftnet56_cifar": "shiftnet",
    "shufflenet_v1": "shufflenetv1",
    "shufflenet_v1_cifar": "shufflenetv1",
    "shufflenet_v2": "shufflenetv2",
    "shufflenet_v2_cifar": "shufflenetv2",
    "squeezenet1_0": "squeezenet",
    "squeezenet1_0_cifar": "squeezenet",
    "squeezenet1_1": "squeezenet",
    "squeezenet1_1_cifar": "squeezenet",
    "vgg11": "vgg",
    "vgg11_bn": "vgg",
    "vgg13": "vgg",
    "vgg13_bn": "vgg",
    "vgg16": "vgg",
    "vgg16_bn": "vgg",
    "vgg16_bn_wide": "vgg",
    "vgg19": "vgg",
    "vgg19_bn": "vgg",
    "xception": "xceptionnet",
    "xception_cifar": "xceptionnet",
}
"""Each network's builder and the file it lives in."""

_HOMES = {**BUILDERS, "build": "weights", "builder_of": "weights", "load_weights": "weights", "picture": "pictures"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
