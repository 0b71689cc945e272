"""Write a torch model as one self-contained ONNX file."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from penjing.core.errors import PenjingError
from penjing.core.files import write_whole
from penjing.exporting import displaced, early, tidy, unpack
from penjing.exporting.blame import export_error, run_error
from penjing.exporting.inputs import Example, batch_of, bound, names_of, open_batch, with_batch
from penjing.exporting.modes import evaluating
from penjing.exporting.running import refuse_packed
from penjing.exporting.silence import silence
from penjing.graph.exits import Every, Exiting
from penjing.graph.quantized import settled

LARGEST_FILE = 2**31 - 1
"""Bytes protobuf can hold in one message."""


def export_onnx(
    model: nn.Module,
    example_args: tuple[Any, ...],
    example_kwargs: dict[str, Any] | None,
    path: str | os.PathLike[str],
    *,
    dynamic_batch: bool = True,
    quick: bool = False,
    notes: list[str] | None = None,
) -> Path:
    """Export a model in evaluation mode to ``path`` and return it.

    The batch, dimension 0 of every tensor input that shares the first one's, stays open; where the model does not
    allow that, the file gets the example's batch. Batch norm is folded into the layer before it. What the reader of
    a report should know is appended to ``notes``. The model's modes are restored; the file appears complete or not
    at all. Quantized layers have their weights as packed codes, which the file unpacks. Shifts are depthwise
    convolutions (``penjing.exporting.displaced``). The file of a network that answers early takes one picture at a
    time, and stops where it is sure (``penjing.exporting.early``).

    ``quick`` takes torch's older exporter: some twenty times faster, the same speed in the runtime, but it bakes in
    every decision the model takes in Python, so use it for measuring only.

    Raises: TraceError naming the module and line that cannot be exported; PlanError for a network that runs from packed
    weights; PenjingError when the file cannot be written.
    """
    refuse_packed(model)
    target, notes = Path(path), [] if notes is None else notes
    example: Example = (tuple(example_args), dict(example_kwargs or {}))
    thresholds: tuple[float, ...] = ()
    if isinstance(model, Exiting):
        if model.early:
            thresholds, model, dynamic_batch = model.thresholds, Every(model), False
            example = with_batch(example, 1)
        else:
            model = model.network
    own, model = model, displaced.as_convolutions(settled(model))
    with evaluating(model):
        try:
            outputs = names_of(model(*example[0], **example[1]), "output")
        except Exception as error:
            raise run_error(model, "its example input", error) from error
        # In ONNX, tensors share one space of names with inputs and weights.
        taken = {*bound(model, example), *(name for name, _ in (*model.named_parameters(), *model.named_buffers()))}
        outputs = [f"output_{name}" if name in taken else name for name in outputs]
        proto = _legacy(model, example, outputs, dynamic_batch) if quick else None
        if proto is None:
            proto = _modern(model, example, outputs, dynamic_batch, notes)
    tidy.strip(proto)
    tidy.name_batch(proto)
    if left := tidy.unfolded(proto):
        notes.append(f"{len(left)} batch norms were not folded into the layer before them, {left[0]} first.")
    displaced.gather(proto)
    if left := unpack.pack(proto, own):
        notes.append(f"The file holds the weights of {len(left)} quantized layers in floats, {left[0]} first.")
    if thresholds:
        early.branched(proto, thresholds)
    _write(target, proto)
    return target


def _modern(model: nn.Module, example: Example, outputs: list[str], dynamic_batch: bool, notes: list[str]) -> Any:
    """Export through torch.export; an open batch is tried first."""
    batch = batch_of(example)
    if dynamic_batch and batch is not None:
        # Two samples: torch.export takes a dimension of one for a constant.
        pair = with_batch(example, 2)
        shapes = open_batch(model, example, torch.export.Dim("batch", min=1))
        with contextlib.suppress(Exception):
            proto = _program(model, pair, outputs, shapes)
            # The exporter may settle on two samples rather than fail.
            if tidy.open_inputs(proto):
                return proto
    try:
        proto = _program(model, example, outputs, None)
    except Exception as error:
        raise export_error(model, example, error) from error
    if dynamic_batch:
        why = "no input has a batch" if batch is None else "the model does not allow an open batch"
        notes.append(f"The exported file has fixed sizes (batch {batch}): {why}.")
    return proto


def _program(model: nn.Module, example: Example, outputs: list[str], shapes: dict[str, Any] | None) -> Any:
    args, kwargs = example
    with silence():
        program = torch.onnx.export(
            model, args, None, kwargs=kwargs, dynamo=True, verbose=False, external_data=False,
            dynamic_shapes=shapes, output_names=outputs,
        )  # fmt: skip
    return program.model_proto if program is not None else None


def _legacy(model: nn.Module, example: Example, outputs: list[str], dynamic_batch: bool) -> Any:
    """Export through torch.jit.trace; None where that fails or gives a lesser graph."""
    import onnx

    args, kwargs = example
    inputs = names_of(bound(model, example), "input")
    axes = {name: {0: "batch"} for name in (*inputs, *outputs)} if dynamic_batch else None
    buffer = io.BytesIO()
    try:
        with silence():
            torch.onnx.export(
                model, args, buffer, kwargs=kwargs, dynamo=False, verbose=False, input_names=inputs,  # type: ignore[arg-type]
                output_names=outputs, dynamic_axes=axes,
            )  # fmt: skip
    except Exception:
        return None
    proto = onnx.load_model_from_string(buffer.getvalue())
    # It makes inputs of numbers, and folds batch norm into plain convolutions only.
    return None if len(proto.graph.input) != len(inputs) or tidy.unfolded(proto) else proto


def _write(target: Path, proto: Any) -> None:
    size = proto.ByteSize()
    if not 0 <= size <= LARGEST_FILE:
        raise PenjingError(f"{target.name} would take {size} bytes; one ONNX file holds {LARGEST_FILE}.")
    write_whole(target, proto.SerializeToString())
