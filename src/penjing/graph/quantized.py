"""Layers in few bits: a convolution or linear layer that rounds its weight, and maybe what it reads, on every run.

The network stays the user's own module. A quantized layer keeps its name, its place and the name of its weight, which
is then the latent one that training updates; beside it stand modules that round.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penjing.core.errors import PlanError, RecipeError, did_you_mean
from penjing.core.layers import Layer
from penjing.core.padding import sides
from penjing.core.plain import told
from penjing.core.registry import build
from penjing.packing.hashed import Hashed
from penjing.packing.levels import Levels
from penjing.quantizers.base import Quantizer, Reads, Weights

FLOAT = 32
"""Bits of a number that is not rounded."""


@dataclass(frozen=True)
class Precision:
    """How one layer is quantized: by which method, and to how many bits its weight."""

    quantizer: Quantizer
    bits: int

    @cached_property
    def input_bits(self) -> int:
        """Bits of what the layer reads."""
        reads = self.quantizer.reads(1, self.bits)
        return FLOAT if reads is None else reads.bits

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"quantizer": told(self.quantizer), "bits": self.bits}

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Precision:
        """Read what ``to_json`` wrote.

        Raises: PlanError when it is of another form.
        """
        try:
            quantizer, bits = build("quantizer", dict(facts["quantizer"])), facts["bits"]
        except (KeyError, TypeError, ValueError, RecipeError) as error:
            raise PlanError(f"This is no precision of a layer: {error}.") from None
        if not isinstance(quantizer, Quantizer) or bits not in quantizer.widths:
            raise PlanError(f"This is no precision of a layer: {bits!r} bits by {facts['quantizer']!r}.")
        return cls(quantizer, int(bits))


class Quantized(nn.Module):
    """What quantized layers share: y = layer(reads(x - threshold), weights(W)).

    ``threshold`` [channels] is there for methods that tell apart signs alone where a ReLU stands in front: what is
    below it counts as negative. It begins at the mean of what the layer reads, is learned, and is 0 where numbers of
    both signs are read.
    """

    weight: Any
    bias: Any
    precision: Precision
    weights: Weights
    reads: Reads | None
    writes: nn.Module | None
    threshold: nn.Parameter | None

    def forward(self, x: Tensor) -> Tensor:
        """Return what the layer computes in few bits."""
        rounded, gain = x, None
        if self.reads is not None:
            x = x if self.threshold is None else x - beside(self.threshold, x)
            rounded, gain = self.reads(x), self.reads.gain(x, self)
        y = self._run(rounded, self.weights(self.weight))
        y = y if gain is None else y * gain
        y = y if self.writes is None else self.writes(y)
        return y if self.bias is None else y + beside(self.bias, y)

    def _run(self, x: Tensor, weight: Tensor) -> Tensor:
        raise NotImplementedError

    def start(self, samples: Tensor | None) -> None:
        """Set what is held beside the weight, by the weight and by what the layer reads of some pictures."""
        with torch.no_grad():
            if samples is not None:
                self.weights.see(samples, self)
            self.weight.copy_(self.weights.start(self.weight))
            if self.reads is not None and samples is not None:
                if self.threshold is not None:
                    axes = [dim for dim in range(samples.dim()) if dim != _channel_dim(samples)]
                    mean = samples.mean(axes) if bool((samples >= 0).all()) else torch.zeros_like(self.threshold)
                    self.threshold.copy_(mean)
                    samples = samples - beside(self.threshold, samples)
                self.reads.start(samples)

    def after_step(self, progress: float) -> None:
        """Clip and anneal after an optimiser step; ``progress`` is the share of the training that is done."""
        self.weights.after_step(self.weight, progress)
        if self.reads is not None:
            self.reads.after_step(progress)

    @property
    def input_bits(self) -> int:
        """Bits of what the layer reads."""
        return FLOAT if self.reads is None else self.reads.bits


class QuantConv2d(Quantized, nn.Conv2d):
    """A convolution in few bits.

    Shapes: x [n, in_channels, h, w] → [n, out_channels, h', w'].
    """

    def _run(self, x: Tensor, weight: Tensor) -> Tensor:
        value = 0.0 if self.reads is None else self.precision.quantizer.pad
        if self.padding_mode != "zeros" or value:
            around = sides(self.padding, self.kernel_size, self.dilation)
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            x = F.pad(x, around, mode, value if mode == "constant" else None)
            return F.conv2d(x, weight, None, self.stride, 0, self.dilation, self.groups)
        return F.conv2d(x, weight, None, self.stride, self.padding, self.dilation, self.groups)


class QuantLinear(Quantized, nn.Linear):
    """A linear layer in few bits.

    Shapes: x [..., in_features] → [..., out_features].
    """

    def _run(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.linear(x, weight)


FORMS: Mapping[type[nn.Module], type[Quantized]] = {nn.Conv2d: QuantConv2d, nn.Linear: QuantLinear}


def quantized(model: nn.Module) -> dict[str, Quantized]:
    """Return the quantized layers of a model, by their first names."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Quantized)}


def inside(layer: Quantized) -> Iterator[nn.Module]:
    """Yield the modules by which a quantized layer rounds."""
    for module in layer.children():
        yield from module.modules()


def refuse_quantized(step: str, model: nn.Module) -> None:
    """Refuse to change layers whose weights are rounded already.

    Raises: PlanError naming the step and the first of them.
    """
    if already := next(iter(quantized(model)), None):
        raise PlanError(
            f"{step}: {already} is quantized already, and bits come last: start from the network before it was "
            "quantized, and quantize all layers in one step at the end."
        )


def precisions(model: nn.Module) -> dict[str, Precision]:
    """Return what ``attach`` was given to make this model, by the names of the layers."""
    return {name: layer.precision for name, layer in quantized(model).items()}


def attach(
    model: nn.Module, wanted: Mapping[str, Precision], shapes: Mapping[str, tuple[int, ...]] | None = None
) -> None:
    """Make layers quantized ones, in place; ``start`` sets what they hold beside their weights.

    ``shapes`` are those that weights are going to have, by name, where they are other than now.

    Raises: PlanError for a name that is no convolution or linear layer of torch's own.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    for name, precision in wanted.items():
        layer: Any = modules.get(name)
        if isinstance(layer, Quantized) and layer.precision == precision:
            continue
        if type(layer) not in FORMS:
            what = "is not there" if layer is None else f"is {type(layer).__name__}"
            raise PlanError(
                f"{name} cannot be quantized: it {what}; a quantized layer is an nn.Conv2d or nn.Linear."
                f"{did_you_mean(name, modules) if layer is None else ''}"
            )
        shape = (shapes or {}).get(f"{name}.weight", tuple(layer.weight.shape))
        if len(shape) != layer.weight.dim():
            raise PlanError(f"{name} cannot be quantized: its weight has {layer.weight.dim()} dimensions, not {shape}.")
        _become(layer, precision, shape)


def _become(layer: Any, precision: Precision, shape: tuple[int, ...]) -> None:
    quantizer, here = precision.quantizer, layer.weight
    channels = shape[1] * getattr(layer, "groups", 1)
    place = {} if here.is_meta else {"device": here.device}  # what is made of a seed would be lost there
    layer.__class__ = FORMS[type(layer)]
    layer.precision = precision
    layer.weights = quantizer.weights(shape, precision.bits).to(dtype=here.dtype, **place)
    if not layer.weights.latent:
        here.requires_grad_(False)
    reads = quantizer.reads(channels, precision.bits)
    layer.reads = None if reads is None else reads.to(dtype=here.dtype, **place)
    layer.writes = quantizer.writes(precision.bits)
    shifts = quantizer.signed and reads is not None
    layer.register_parameter("threshold", nn.Parameter(here.new_zeros(channels)) if shifts else None)
    layer.train(layer.training)


def floated(model: nn.Module) -> nn.Module:
    """Return a copy whose quantized layers are ordinary ones with the rounded weights; others are the model itself.

    What layers read is not rounded in it: it is the network as tracing and counting see it.
    """
    if not quantized(model):
        return model
    copied = copy.deepcopy(model)
    for layer in quantized(copied).values():
        with torch.no_grad():
            weight = nn.Parameter(layer.weights(layer.weight).detach().clone())
        _plain(layer, weight)
    return copied


def latent(model: nn.Module) -> nn.Module:
    """Return a copy whose quantized layers are ordinary ones with the weights that were trained, as they are."""
    copied = copy.deepcopy(model)
    for layer in quantized(copied).values():
        _plain(layer, layer.weight)
    return copied


def _plain(layer: Any, weight: nn.Parameter) -> None:
    for name in ("weights", "reads", "writes"):
        layer._modules.pop(name, None)
        layer.__dict__.pop(name, None)
    layer._parameters.pop("threshold", None)
    layer.__class__ = next(form for form, made in FORMS.items() if made is type(layer))
    layer.weight = weight
    del layer.precision


class Settled(Weights):
    """What is left of the rounding of a weight that is rounded for good: ``stored`` is how it was stored."""

    def __init__(self, bits: int, stored: Levels | Hashed | None = None) -> None:
        super().__init__(bits)
        self.stored = stored

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight."""
        return weight

    def levels(self, weight: Tensor) -> Levels | Hashed:
        """Return how the weight was stored.

        Raises: PlanError where that is not known.
        """
        if self.stored is None:
            raise PlanError("This weight was rounded for good; ask the layer that it was made from.")
        return self.stored


def settle(layer: Quantized, stored: Levels | Hashed | None = None) -> None:
    """Let a layer hold a weight that is rounded already, in place; the weight itself is set by the caller."""
    layer.weights = Settled(layer.precision.bits, stored)


def settled(model: nn.Module) -> nn.Module:
    """Return a copy whose quantized layers hold rounded weights, once and for all; others are the model itself.

    It computes the same without rounding on every run, where another order of sums could tip a weight over.
    """
    if not quantized(model):
        return model
    copied = copy.deepcopy(model)
    for layer in quantized(copied).values():
        with torch.no_grad():
            layer.weight = nn.Parameter(layer.weights(layer.weight).detach().clone())
        settle(layer)
    return copied.train(model.training)


def start(model: nn.Module, names: Iterable[str], seen: Mapping[str, Tensor]) -> None:
    """Let quantized layers begin with their weights, and with what was seen of what they read, in place.

    Raises: PlanError naming the layer whose weights, or what it reads, cannot be rounded.
    """
    layers = quantized(model)
    for name in names:
        layer, samples = layers[name], seen.get(name)
        if not bool(layer.weight.isfinite().all()):
            raise PlanError(f"{name} cannot be quantized: its weights hold NaN or infinity; train or load it anew.")
        if samples is not None and not bool(samples.isfinite().all()):
            raise PlanError(
                f"{name} cannot be quantized: on the training pictures it reads NaN or infinity; look at these, and at "
                "the weights of the layers before it."
            )
        try:
            layer.start(samples)
        except PlanError as error:
            raise PlanError(f"{name} cannot be quantized: {error}") from None


def with_bits(layer: Layer, precision: Precision) -> Layer:
    """Return a layer as it is in few bits."""
    shape = (layer.out_channels, layer.in_channels // max(layer.groups, 1), *layer.kernel)
    stored = precision.quantizer.stored(shape, precision.bits)
    return replace(layer, bits=precision.bits, input_bits=precision.input_bits, stored_bits=stored)


def inputs_of(model: nn.Module, names: Iterable[str], batches: Iterable[Tensor], most: int) -> dict[str, Tensor]:
    """Return what layers read of some pictures, at most ``most`` pictures each, [n, channels, ...]."""
    seen: dict[str, list[Tensor]] = {name: [] for name in names}
    hooks = [model.get_submodule(name).register_forward_pre_hook(_noting(seen[name])) for name in seen]
    count = 0
    try:
        with torch.no_grad():
            for x in batches:
                model(x)
                count += len(x)
                if count >= most:
                    break
    finally:
        for hook in hooks:
            hook.remove()
    return {name: torch.cat(parts) for name, parts in seen.items() if parts}


def _noting(into: list[Tensor]) -> Any:
    def note(module: nn.Module, args: tuple[Any, ...]) -> None:
        into.append(args[0].detach())

    return note


def _channel_dim(x: Tensor) -> int:
    return 1 if x.dim() == 4 else x.dim() - 1


def beside(values: Tensor, x: Tensor) -> Tensor:
    """Return a vector of channels in the shape in which it is added to pictures or features."""
    return values.view(1, -1, 1, 1) if x.dim() == 4 else values
