"""Costs that are arithmetic on the layers that remain."""

from __future__ import annotations

from dataclasses import dataclass

from penjing.core.protocols import Draft
from penjing.core.registry import register

BYTES_A_VALUE = 4
"""Weights and activations are 32-bit floats."""

BYTES_A_LAYER = 500
"""What a layer adds to an ONNX file beside its weights: its node, its activation, their names and shapes."""


@register("cost")
@dataclass(frozen=True)
class params:  # noqa: N801 - the name a budget writes
    """Count the parameters that are left, those of batch norm included.

    Units: parameters.
    """

    unit = "parameters"
    cheap = True

    def __call__(self, draft: Draft) -> float:
        """Return the count."""
        return float(draft.parameters)


@register("cost")
@dataclass(frozen=True)
class nonzero:  # noqa: N801 - the name a budget writes
    """Count the parameters that are left and not set to zero.

    Units: parameters.
    """

    unit = "parameters"
    cheap = True

    def __call__(self, draft: Draft) -> float:
        """Return the count."""
        return float(draft.nonzero)


@register("cost")
@dataclass(frozen=True)
class conv_weights:  # noqa: N801 - the name a budget writes
    """Count the weights of convolutions that are left and not set to zero, without biases, norms and linear layers.

    Units: weights.
    """

    unit = "weights"
    cheap = True

    def __call__(self, draft: Draft) -> float:
        """Return the count; a weight that several layers read counts once."""
        layers = {layer.weight: layer for layer in draft.layers if layer.kind == "conv"}
        return float(sum(round(layer.density * layer.weights) for layer in layers.values()))


@register("cost")
@dataclass(frozen=True)
class macs:  # noqa: N801 - the name a budget writes
    """Count the multiply-accumulates that convolutions and linear layers spend on one sample.

    Zeros are multiplied like any other weight; biases, batch norm and activations are not counted.

    Units: MACs.
    """

    unit = "MACs"
    cheap = True

    def __call__(self, draft: Draft) -> float:
        """Return the sum over the layers."""
        return float(sum(layer.macs for layer in draft.layers))


@register("cost")
@dataclass(frozen=True)
class size:  # noqa: N801 - the name a budget writes
    """Predict the size of the exported file: four bytes a parameter, fewer a rounded weight, some hundred a layer.

    Batch norm counts twice its channels though folding leaves one
    bias each, so the prediction is up to a percent too large for narrow networks; buffers the exporter keeps are left
    out. The exported file decides in the end.

    Units: bytes.
    """

    unit = "bytes"
    cheap = True

    def __call__(self, draft: Draft) -> float:
        """Return the predicted size."""
        once = {layer.weight: layer for layer in draft.layers}.values()  # a layer that runs twice is stored once
        saved = sum(BYTES_A_VALUE * layer.weights - layer.weight_bytes for layer in once)
        return float(BYTES_A_VALUE * draft.parameters - saved + BYTES_A_LAYER * len(draft.layers))


@register("cost")
@dataclass(frozen=True)
class memory:  # noqa: N801 - the name a budget writes
    """Predict the most memory the activations of one sample take at one time; weights are not counted.

    Units: bytes.
    """

    unit = "bytes"
    cheap = True

    def __call__(self, draft: Draft) -> float:
        """Return the peak."""
        return float(BYTES_A_VALUE * draft.peak_elements)
