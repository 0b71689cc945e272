"""How wide a layer's numbers are on hardware: which precision it is computed in, and what of it lies in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from penjing.core.layers import Layer
from penjing.targets.shape import Shape

VALUE_BYTES = {"int8": 1, "int16": 2, "fp16": 2, "fp32": 4}
"""Bytes of a weight or an activation, by precision."""

BYTE = 8
"""Bits; what a layer reads in more of them crosses as it does unrounded."""


class Widths(NamedTuple):
    """The precision that a layer is computed in, and the widths of its numbers.

    On the chip, where few bits are unpacked, a weight or a value that is read takes ``on_chip`` bytes, and one that is
    written ``written``: as wide as in a network of floats, since who reads it is not known here. In DRAM and flash a
    value that is read has ``read_bits``, and all weights together ``weight_bits``.
    """

    precision: str
    on_chip: int
    written: int
    read_bits: int
    weight_bits: int

    @classmethod
    def of(
        cls, layer: Layer, shape: Shape, precision: str, energies: Mapping[str, float], speeds: Mapping[str, float]
    ) -> Widths:
        """Return those of a layer on hardware that computes floats in ``precision``.

        Of a layer whose weights alone are rounded the weights are unpacked to that precision; one that reads rounded
        values as well is computed in the narrowest of the hardware's precisions that holds both.
        """
        own = VALUE_BYTES[precision]
        rounded = layer.bits < BYTE * own and layer.input_bits < BYTE * own
        computed = narrowest(precision, max(layer.bits, layer.input_bits), energies, speeds) if rounded else precision
        weight_bits = BYTE * own * shape.stored
        return cls(
            computed,
            VALUE_BYTES[computed],
            own,
            min(layer.input_bits if layer.input_bits <= BYTE else BYTE * own, BYTE * own),
            min(layer.stored_bits, weight_bits) if layer.stored_bits else weight_bits,
        )


def narrowest(precision: str, bits: int, energies: Mapping[str, float], speeds: Mapping[str, float]) -> str:
    """Return the narrowest precision that holds whole numbers of so many bits, ``precision`` being the widest.

    One that takes more energy, or is slower, than a wider one is of no use, so that nothing costs more with fewer bits.

    >>> [narrowest("fp32", bits, {"fp32": 4.6, "fp16": 1.5, "int8": 0.2}, {}) for bits in (4, 9, 17)]
    ['int8', 'fp16', 'fp32']
    >>> narrowest("fp32", 4, {"fp32": 4.6, "int8": 0.2}, {"int8": 0.5}), narrowest("int8", 4, {"int8": 1}, {})
    ('fp32', 'int8')
    """
    found = precision
    for name in sorted(energies, key=lambda name: (-VALUE_BYTES[name], -energies[name])):
        fits = bits <= BYTE * VALUE_BYTES[name] < BYTE * VALUE_BYTES[found]
        if fits and energies[name] <= energies[found] and speeds.get(name, 1.0) >= speeds.get(found, 1.0):
            found = name
    return found
