"""An accelerator, or a microcontroller, as numbers, and what a network costs on it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from penjing.core.errors import PlanError, RecipeError, did_you_mean
from penjing.core.layers import Layer, Traffic
from penjing.core.protocols import Draft
from penjing.targets import systolic
from penjing.targets.estimate import UNITS, Estimate, Row
from penjing.targets.numbers import Number
from penjing.targets.shape import Shape
from penjing.targets.systolic import Registers, Words
from penjing.targets.tiling import Crossing, tiling
from penjing.targets.widths import BYTE, VALUE_BYTES, Widths

ZEROS = ("multiplied", "gated", "skipped")
"""What happens to weights of zero: they cost like others, no energy, or no time either."""

DEPTHWISE = ("array", "vector")
"""Who computes depthwise convolutions: the array, group by group, or the unit that pools and adds."""

IN_PLACE = ("cat",)
"""Moves that are none, since what comes before writes where it is wanted."""

CACHED = 100_000
"""Rows kept; a search prices the same layers again and again."""


@dataclass(frozen=True)
class Accelerator:
    """Hardware whose cost for a network is arithmetic.

    ``mac_pj`` lists the precisions it has; ``speed`` how fast one is, where it is not one multiplication a cycle and
    multiplier. Floats are computed in ``precision``, and layers that round both weights and what they read in the
    narrowest precision that holds these; few bits cross to DRAM and lie in flash packed, and are unpacked on the chip.
    Without ``dram_bandwidth`` activations live in SRAM and weights in flash, and ``sram_bytes`` and ``flash_bytes`` are
    hard ``limits``; with it SRAM is a buffer that tiles go through. On a ``resident`` target, activations that fit stay
    there from layer to layer, and so do all weights from picture to picture where they fit beside. ``vector`` is how
    many operations a cycle pooling and additions have. ``numbers`` says where each number is from.

    Units: Hz, bytes, bytes/s, ms, mW, frames/s as named; ``mac_pj`` in pJ, ``sram_pj`` and ``dram_pj`` in pJ a byte.
    """

    name: str
    rows: int
    columns: int
    dataflow: str
    clock_hz: float
    precision: str
    mac_pj: Mapping[str, float] = field(hash=False)
    sram_bytes: float
    sram_pj: float = 0.0
    dram_pj: float = 0.0
    sram_bandwidth: float | None = None
    dram_bandwidth: float | None = None
    launch_ms: float = 0.0
    static_mw: float = 0.0
    efficiency: float = 1.0
    vector: float = 1.0
    overlap_load: bool = False
    resident: bool = False
    zeros: str = "gated"
    depthwise: str = "array"
    speed: Mapping[str, float] = field(default_factory=dict, hash=False)
    registers: Registers | None = None
    flash_bytes: float | None = None
    layer_bytes: float = 0.0
    code_bytes: float = 0.0
    batch: int = 1
    frame_rate: float | None = None
    about: str = ""
    numbers: tuple[Number, ...] = field(default=(), compare=False, repr=False)

    @property
    def runtime(self) -> str:
        """Nothing: a model decides."""
        return ""

    @property
    def tells(self) -> Mapping[str, str]:
        """The costs that an estimate has, with their units."""
        return UNITS

    @property
    def limits(self) -> Mapping[str, float]:
        """What the device does not have more of, by cost, in bytes."""
        hard = {"sram": self.sram_bytes if self.dram_bandwidth is None else None, "flash": self.flash_bytes}
        return {cost: size for cost, size in hard.items() if size is not None}

    @property
    def step(self) -> int:
        """The multiple that channel counts are worth having in, whatever the layer.

        Input channels of a 1x1 and of a 3x3 convolution fill the rows of a weight stationary array after ``rows`` and
        ``rows / 9`` of them, so that a coarser step than their common divisor would miss counts that just fit. Where a
        side streams through the array, each channel counts.
        """
        if self.dataflow != "weight_stationary":
            return 1
        return math.gcd(self.columns, self.rows // 9 if self.rows % 9 == 0 else 1)

    def at(
        self, *, precision: str | None = None, batch: int | None = None, frame_rate: float | None = None
    ) -> Accelerator:
        """Return the same hardware in another precision, with another batch, or at a frame rate.

        Raises: RecipeError for a precision it does not have, or a batch or rate that is not positive.
        """
        if precision is not None and precision not in self.mac_pj:
            hint = did_you_mean(precision, self.mac_pj)
            raise RecipeError(f"{self.name} does not compute in {precision!r}.{hint}")
        if batch is not None and batch < 1:
            raise RecipeError(f"The batch on {self.name} must be 1 or more; got {batch}.")
        if frame_rate is not None and not 0 < frame_rate < math.inf:
            raise RecipeError(f"The frame rate on {self.name} must be a positive number; got {frame_rate}.")
        given = {"precision": precision, "batch": batch, "frame_rate": frame_rate}
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return replace(self, **changes)

    def estimate(self, draft: Draft) -> Estimate:
        """Return what a draft costs for one inference of the batch, layer by layer.

        Nothing but ``power_mw`` without a frame rate and ``peak_power_mw``, which divide by a time, rises when a
        channel or a bit goes.

        Raises: PlanError naming a layer of which no tile fits the memory.
        """
        held = self._held(draft)
        rows = [self._layer(layer, held) for layer in draft.layers] + [self._pass(one) for one in draft.passes]
        latency, energy = math.fsum(r.latency_ms for r in rows), math.fsum(r.energy_mj for r in rows)
        in_memory = VALUE_BYTES[self.precision] * self.batch * draft.peak_elements
        need = in_memory if self.dram_bandwidth is None else max((r.need_bytes for r in rows), default=0.0)
        return Estimate(
            rows=tuple(rows),
            latency_ms=latency,
            energy_mj=energy,
            power_mw=self._power(math.fsum(r.dynamic_mj for r in rows), energy, latency),
            peak_power_mw=max((r.power_mw for r in rows), default=0.0),
            sram_bytes=float(need),
            dram_bytes=math.fsum(r.dram_bytes for r in rows),
            flash_bytes=self._stored(draft) + self.layer_bytes * sum(r.macs > 0 for r in rows) + self.code_bytes,
        )

    def _power(self, dynamic: float, energy: float, latency: float) -> float:
        """Return the average power: at the frame rate, kept or not, or back to back."""
        if self.frame_rate is not None:
            return self.static_mw + dynamic * self.frame_rate / self.batch
        return energy / latency * 1e3 if latency else 0.0

    @cached_property
    def _known(self) -> dict[Any, Row]:
        return {}

    def _stored(self, draft: Draft) -> float:
        """Return the bytes of all parameters as they lie in flash."""
        own, narrow = VALUE_BYTES[self.precision], self._few_bits(draft)
        return own * draft.parameters - sum(own * shape.stored - w.weight_bits / BYTE for shape, w in narrow)

    def _held(self, draft: Draft) -> bool:
        """Tell whether all weights stay on the chip, beside the most that activations take at one time."""
        if not self.resident or self.dram_bandwidth is None:
            return False
        own = VALUE_BYTES[self.precision]
        narrower = sum((own - w.on_chip) * shape.stored for shape, w in self._few_bits(draft))
        return own * (draft.parameters + self.batch * draft.peak_elements) - narrower <= self.sram_bytes

    def _widths(self, layer: Layer, shape: Shape) -> Widths:
        return Widths.of(layer, shape, self.precision, self.mac_pj, self.speed)

    def _few_bits(self, draft: Draft) -> list[tuple[Shape, Widths]]:
        """Return the layers in few bits, one for each weight."""
        left = [layer for layer in draft.layers if layer.stored_bits and layer.in_channels and layer.out_channels]
        layers = {layer.weight: layer for layer in left}
        shapes = [Shape.of(layer, self.batch) for layer in layers.values()]
        return [(shape, self._widths(layer, shape)) for layer, shape in zip(layers.values(), shapes, strict=True)]

    def _layer(self, layer: Layer, held: bool) -> Row:
        if not layer.in_channels or not layer.out_channels:
            return _nothing(layer.name, layer.kind)
        shape = Shape.of(layer, self.batch)
        key = (layer.name, layer.kind, layer.macs, shape, self._widths(layer, shape), held)
        if key not in self._known:
            if len(self._known) >= CACHED:
                self._known.clear()
            self._known[key] = self._price_layer(*key)
        return self._known[key]

    def _price_layer(self, name: str, kind: str, macs: int, shape: Shape, widths: Widths, held: bool) -> Row:
        macs *= shape.batch
        vector = self.depthwise == "vector" and shape.groups > 1 and shape.in_channels == 1
        if vector:
            cycles = macs / self.vector
            moved = Words(shape.inputs, shape.weights, 0, shape.outputs)
        else:
            peak = self.efficiency * self.speed.get(widths.precision, 1.0)
            cycles, moved = self._cycles(shape) * shape.groups / peak, self._words(shape, widths.on_chip)
        sram = shape.groups * moved.bytes(widths.on_chip, widths.written)
        dram, need = self._crossing(name, shape, widths, held)
        counted = macs if self.zeros == "multiplied" else shape.m * shape.nonzero
        busy = 0.0 if vector or not cycles else macs / (cycles * self.rows * self.columns)
        arithmetic = counted * self.mac_pj[widths.precision]
        return self._priced(name, kind, macs, cycles, busy, sram, dram, need, arithmetic)

    def _cycles(self, shape: Shape) -> int:
        """Return the cycles of one group."""
        nonzero = systolic.up(shape.nonzero, shape.groups)
        if self.dataflow == "row_stationary":
            conv = shape.rows
            if self.zeros == "skipped":
                conv = conv._replace(pairs=systolic.up(nonzero * shape.batch, shape.area))
            return systolic.row_stationary(conv, self.rows, self.columns)
        sizes = (self.dataflow, shape.m, shape.k, shape.n, self.rows, self.columns)
        if self.zeros == "skipped":
            return systolic.skipped(*sizes, nonzero, self.overlap_load)
        return systolic.cycles(*sizes, self.overlap_load)

    def _words(self, shape: Shape, per_value: int) -> Words:
        """Return what one group moves between the array and SRAM."""
        if self.dataflow != "row_stationary":
            return systolic.words(self.dataflow, shape.m, shape.k, shape.n, self.rows, self.columns)
        conv, held = shape.rows, Words(shape.inputs, shape.weights, 0, shape.outputs)
        registers = self.registers or Registers(conv.kernel_columns, conv.kernel_columns, 1)
        channels = (shape.in_channels, shape.out_channels)
        return systolic.row_stationary_words(conv, channels, held, self.rows, self.columns, registers, per_value)

    def _crossing(self, name: str, shape: Shape, widths: Widths, held: bool) -> tuple[float, float]:
        """Return what crosses to DRAM, and the on-chip memory that a layer takes."""
        activations = shape.groups * (widths.on_chip * shape.inputs + widths.written * shape.outputs)
        if self.dram_bandwidth is None:
            return 0.0, activations
        crossing = Crossing(widths.read_bits, widths.weight_bits, BYTE * widths.written)
        found = tiling(shape, widths.on_chip, self.sram_bytes, crossing)
        if found.dram_bytes is None:
            raise PlanError(
                f"{name} does not fit {self.name}: its smallest tile takes {found.least_bytes:,} bytes of on-chip "
                f"memory, and there are {self.sram_bytes:,.0f}; give the target more sram."
            )
        need = min(found.need_bytes, self.sram_bytes)
        if self.resident and activations + found.least_bytes <= self.sram_bytes:
            return (0.0 if held else widths.weight_bits / BYTE), need
        return found.dram_bytes, need

    def _pass(self, one: Traffic) -> Row:
        moved = self.batch * (one.in_elements + one.out_elements) * VALUE_BYTES[self.precision]
        if not one.in_elements or not one.out_elements or one.operator in IN_PLACE:
            return _nothing(one.name, one.kind)
        on_chip = self.dram_bandwidth is None or (self.resident and moved <= self.sram_bytes)
        cycles = self.batch * one.operations / self.vector
        return self._priced(
            one.name, one.kind, 0, cycles, 0.0, moved, 0 if on_chip else moved, moved if on_chip else 0, 0.0
        )

    def _priced(
        self,
        name: str,
        kind: str,
        macs: int,
        cycles: float,
        busy: float,
        sram: float,
        dram: float,
        need: float,
        arithmetic: float,
    ) -> Row:
        """Return a row from its cycles, its traffic and the pJ of its multiplications."""
        times = {
            "compute": cycles / self.clock_hz * 1e3,
            "dram": dram / self.dram_bandwidth * 1e3 if self.dram_bandwidth else 0.0,
            "sram": sram / self.sram_bandwidth * 1e3 if self.sram_bandwidth else 0.0,
        }
        bound = max(times, key=times.__getitem__)
        latency = times[bound] + self.launch_ms
        bound = bound if times[bound] >= self.launch_ms else "launch"
        dynamic = (arithmetic + sram * self.sram_pj + dram * self.dram_pj) * 1e-9
        energy = dynamic + self.static_mw * latency * 1e-3
        power = energy / latency * 1e3 if latency else 0.0
        return Row(
            name, kind, macs, cycles, min(busy, 1.0), float(sram), float(dram), float(need), latency, energy, power,
            bound, dynamic,
        )  # fmt: skip


def _nothing(name: str, kind: str) -> Row:
    """Return the row of what has no channels left, or moves nothing."""
    return Row(name, kind, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, "compute", 0.0)
