"""How to train, as plain data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from penjing.core.errors import TrainError
from penjing.graph.quantized import quantized


@dataclass(frozen=True)
class Options:
    """How to train.

    ``lr`` is the peak of a linear warm-up (``warmup``: its fraction of all steps) and a cosine to zero. ``batch`` is
    the size over all devices together. ``weight_decay`` spares parameters of fewer than two dimensions (biases,
    normalisation) unless ``decay_norm``. ``clip`` bounds the norm of the model's gradient. ``mixup`` is the alpha of
    the beta distribution by which the pictures of a batch are blended, 0 for none (``penjing.training.blend``); terms
    see the blend, so that a teacher tells what it makes of pictures it has not learned by heart. ``keep`` says whether
    the last weights stay or those of the epoch with the best validation accuracy. ``precision`` "auto" is bf16-mixed
    where the hardware computes in bf16. On a CPU a device is a process. ``views`` is how many augmentations of each
    picture there are, which epochs take in turn; a lent teacher then answers each of them once, beforehand
    (``penjing.training.remembered``). 0 draws them anew in every epoch.
    """

    epochs: int = 40
    lr: float = 0.02
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    decay_norm: bool = False
    batch: int = 128
    warmup: float = 0.05
    label_smoothing: float = 0.0
    mixup: float = 0.0
    views: int = 0
    clip: float | None = None
    keep: Literal["last", "best"] = "last"
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    channels_last: bool = True
    devices: int = 1

    @property
    def least(self) -> int:
        """The smallest batch trained on: two samples a device, since batch norm has no variance of one."""
        return 2 * self.devices

    def steps(self, samples: int) -> int:
        """Return the optimiser steps of one epoch of this many samples.

        >>> Options(batch=128).steps(1025), Options(batch=128).steps(1026)
        (8, 9)
        """
        whole, rest = divmod(samples, self.batch)
        return whole + (rest >= self.least)


def check_values(recipe: Options) -> None:
    """Refuse options that cannot work on any data.

    Raises: TrainError naming the option.
    """
    for name, least in (("epochs", 1), ("devices", 1), ("batch", recipe.least)):
        value = getattr(recipe, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise TrainError(f"{name} must be a whole number, at least {least}; got {value!r}.")
    if isinstance(recipe.views, bool) or not isinstance(recipe.views, int) or recipe.views < 0:
        raise TrainError(f"views counts the augmentations of a picture, 0 for new ones always; got {recipe.views!r}.")
    if recipe.views and recipe.mixup:
        raise TrainError("views are the same again and again, and mixup blends anew each time: leave one of them out.")
    if not (math.isfinite(recipe.lr) and recipe.lr > 0):
        raise TrainError(f"lr must be a number above 0; got {recipe.lr}.")
    if not 0 <= recipe.warmup < 1:
        raise TrainError(f"warmup is a fraction of the steps, from 0 to below 1; got {recipe.warmup}.")
    if not (math.isfinite(recipe.mixup) and recipe.mixup >= 0):
        raise TrainError(f"mixup is the alpha of a beta distribution, 0 for none; got {recipe.mixup}.")
    if recipe.clip is not None and not recipe.clip > 0:
        raise TrainError(f"clip must be above 0; got {recipe.clip}. Leave it out for no clipping.")
    for name, known in (("optimizer", ("sgd", "adamw")), ("keep", ("last", "best"))):
        if getattr(recipe, name) not in known:
            raise TrainError(f"{name} is {' or '.join(known)}, not {getattr(recipe, name)!r}.")
    for name in ("momentum", "weight_decay", "label_smoothing"):
        if not 0 <= getattr(recipe, name) < 1:
            raise TrainError(f"{name} lies from 0 to below 1; got {getattr(recipe, name)}.")


def check(recipe: Options, samples: int, validated: bool) -> None:
    """Refuse options that cannot work on this many samples.

    Raises: TrainError naming the option.
    """
    check_values(recipe)
    if recipe.keep == "best" and not validated:
        raise TrainError("keep is best, but there is no validation split to choose the best epoch on.")
    if recipe.steps(samples) == 0:
        raise TrainError(
            f"There is nothing to train on: {samples} samples, and a batch needs at least {recipe.least} "
            f"for {recipe.devices} device(s)."
        )


def parameters_of(*optimizers: torch.optim.Optimizer) -> list[Tensor]:
    """Return what optimisers update, in their order."""
    return [parameter for one in optimizers for group in one.param_groups for parameter in group["params"]]


def make_optimizer(
    recipe: Options, model: nn.Module, extras: Sequence[nn.Parameter], driven: Sequence[Tensor] = ()
) -> torch.optim.Optimizer:
    """Return the optimiser of everything that requires a gradient; the terms' own parameters never decay.

    Nor do latent weights of which the signs alone count: their size says how sure a sign is. What is ``driven`` by an
    optimiser of its own is left to that.

    Raises: TrainError when there is nothing to train.
    """
    foreign = {id(parameter) for parameter in (*extras, *driven)}
    decayed: list[nn.Parameter] = []
    signs = {id(layer.weight) for layer in quantized(model).values() if layer.precision.bits == 1}
    elsewhere = {id(parameter) for parameter in driven}
    free = [parameter for parameter in extras if parameter.requires_grad and id(parameter) not in elsewhere]
    for parameter in model.parameters():
        if parameter.requires_grad and id(parameter) not in foreign:
            decays = (parameter.ndim >= 2 or recipe.decay_norm) and id(parameter) not in signs
            (decayed if decays else free).append(parameter)
    if not decayed and not free:
        raise TrainError("There is nothing to train: no parameter of the model has requires_grad set.")
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": free, "weight_decay": 0.0}]
    if recipe.optimizer == "adamw":
        betas = (recipe.momentum, 0.999)
        return torch.optim.AdamW(groups, lr=recipe.lr, betas=betas, weight_decay=recipe.weight_decay)
    return torch.optim.SGD(
        groups,
        lr=recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov and recipe.momentum > 0,
    )
