"""What the rows of ``fewbits.py`` compare: each method as the steps of a row, at a given length of training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from penjing.steps.int8 import int8
from penjing.steps.prune import prune
from penjing.steps.quantize import quantize
from penjing.steps.recalibrate import recalibrate
from penjing.steps.train import train

LR, FRESH_LR = 0.01, 0.1
"""The peak rates of training that goes on, and of training from new weights."""

TAUGHT = ("soft_targets",)
"""What teaches a network that goes on; one from new weights learns the labels alone."""

CALIBRATION = 512


@dataclass(frozen=True)
class Method:
    """A method: the step that rounds, or all steps at a given length; and where its numbers lie.

    ``bits`` are those of weights and of what layers read. ``binary`` networks are trained from new weights as well, and
    their latent weights do not decay. ``file`` is what holds the few bits: the bundle, or of int8 the ONNX file.
    """

    bits: str
    step: Any = None
    steps: Callable[[int], list[Any]] | None = None
    binary: bool = False
    file: str = "bundle"

    def course(self, epochs: int, fresh: bool = False) -> list[Any]:
        """Return the steps of a row; without epochs nothing is trained."""
        if self.steps is not None:
            return self.steps(epochs)
        return [self.step, *self.training(epochs, fresh)]

    def training(self, epochs: int, fresh: bool = False) -> list[Any]:
        """Return the training that follows the rounding."""
        if not epochs:
            return []
        decay = 0.0 if self.binary else 1e-4
        lr, terms = (FRESH_LR, ()) if fresh else (LR, TAUGHT)
        return [train(epochs=epochs, lr=lr, weight_decay=decay, terms=terms)]


def deep_compression(epochs: int) -> list[Any]:
    """Return pruning to a fifth of the weights in half of the epochs, and shared values in the rest.

    Two epochs are the fewest, one of each.
    """
    rounds = min(3, max(1, epochs // 4))
    each = max(1, epochs // 2 // rounds)
    method = {"sparsity": 0.8, "rounds": rounds, "epochs": each, "shared": max(1, epochs - rounds * each)}
    return [{"deep_compression": method | {"lr": LR, "terms": list(TAUGHT)}}]


def _of(bits: str, method: Any, weights: int | None = None, binary: bool = False) -> Method:
    return Method(bits, quantize(method, bits=weights, images=CALIBRATION), binary=binary)


METHODS: Mapping[str, Method] = {
    "int8_ptq": Method("8/8", steps=lambda epochs: [int8()], file="onnx"),
    "int8_qat": Method("8/8", steps=lambda epochs: [int8(epochs=epochs, lr=LR)], file="onnx"),
    "fixed": _of("8/8", "fixed", 8),
    "lsq_8": _of("8/8", "lsq", 8),
    "lsq_4": _of("4/4", "lsq", 4),
    "lsq_2": _of("2/2", "lsq", 2),
    "pact": _of("2/2", "pact", 2),
    "dsq_2": _of("2/2", "dsq", 2),
    "dsq_1": _of("1/1", "dsq", 1),
    "dorefa_2": _of("2/2", {"dorefa": {"activations": 2}}, 2),
    "dorefa_124": _of("1/2, gradients 4", {"dorefa": {"activations": 2, "gradients": 4}}, 1),
    "twn": _of("2/32", "twn"),
    "ttq": _of("2/32", "ttq"),
    "binaryconnect": _of("1/32", "binaryconnect", binary=True),
    "lab": _of("1/32", "lab", binary=True),
    "xnor_weights": _of("1/32", {"xnor": {"activations": False}}, binary=True),
    "irnet_weights": _of("1/32", {"irnet": {"activations": False}}, binary=True),
    "bnn": _of("1/1", "bnn", binary=True),
    "xnor": _of("1/1", "xnor", binary=True),
    "irnet": _of("1/1", "irnet", binary=True),
    "bireal": _of("1/1", "bireal", binary=True),
    "codebook_4": _of("4/32", "codebook", 4),
    "codebook_2": _of("2/32", "codebook", 2),
    "product": _of("8 a vector/32", "product", 8),
    "hashed_8": _of("4/32", {"hashed": {"ratio": 1 / 8}}),
    "hashed_64": _of("0.5/32", {"hashed": {"ratio": 1 / 64}}),
    "deep_compression": Method("8/32", steps=deep_compression),
}
"""By the name of the rows."""

WIDE = ("int8_ptq", "int8_qat", "xnor", "twn", "lsq_2", "codebook_4")
"""Those of VGG-16 at half width."""

STORED = ("int8_ptq", "lsq_4", "lsq_2", "twn", "xnor", "codebook_4", "codebook_2", "hashed_8", "hashed_64")
"""Those of VGG-16 at full width, of which bytes and latency alone are told."""

FAMILIES: Mapping[str, tuple[str, ...]] = {
    "joint": ("channels", "svd_spatial", "lsq"),
    "channels": ("channels",),
    "ranks": ("svd_spatial",),
    "bits": ("lsq",),
}
"""What one plan of the exact solver chooses among."""

BUDGETS = ("size=0.2x", "latency=0.7x", "size=0.2x,latency=0.7x")


def family(name: str, epochs: int) -> list[Any]:
    """Return the steps of a plan of one family, or of all in one."""
    judged = {"divergence": {"images": 512, "recalibrate": 2}}
    cut = prune(rewrite=FAMILIES[name], allocator="knapsack", images=CALIBRATION, measure=judged)
    training = [train(epochs=epochs, lr=LR, weight_decay=1e-4, terms=TAUGHT)] if epochs else []
    return [cut, recalibrate(images=CALIBRATION), *training]
