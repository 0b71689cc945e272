"""Open, feed and run an ONNX file in ONNX Runtime on the CPU."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from penjing.core.errors import DataError, PenjingError
from penjing.core.outputs import KEYS
from penjing.core.random import stream
from penjing.exporting import tidy

Arrays: TypeAlias = dict[str, NDArray[Any]]
"""What goes into a session, by input name."""

Source: TypeAlias = str | os.PathLike[str] | bytes
"""A file, or the bytes of one."""

KINDS: dict[str, str] = {
    "tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16", "tensor(int64)": "int64",
    "tensor(int32)": "int32", "tensor(int8)": "int8", "tensor(uint8)": "uint8", "tensor(bool)": "bool",
}  # fmt: skip
"""The types of inputs that can be made up, as numpy knows them."""


class Split(Protocol):
    """Labelled samples that come in batches."""

    def batches(self, size: int) -> Iterable[tuple[Any, Any]]:
        """Yield inputs and labels, at most ``size`` at a time."""


def session(source: Source, threads: int = 1, profile: str = "") -> Any:
    """Open a model as an ``onnxruntime.InferenceSession`` that computes on ``threads`` threads.

    Threads wait for work actively while a run lasts, as the runtime does by default, and stop when it ends: else
    the idle threads of one session take the processor from the next, which made interleaved times of two equal
    models differ threefold. With ``profile`` the times of all operators are written to a file that begins so.

    Raises: PenjingError when the file is missing or not a model.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, profile
    name = "The model" if isinstance(source, bytes) else os.fspath(source)
    try:
        model = source if isinstance(source, bytes) else os.fspath(source)
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        reason = " ".join(str(error).split())
        raise PenjingError(f"{name} is not a model ONNX Runtime can open: {reason}") from error


def fixed_batch(running: Any) -> int | None:
    """Return the batch a model insists on; None where dimension 0 of some input is open."""
    firsts: list[Any] = [value.shape[0] for value in running.get_inputs() if value.shape]
    return int(firsts[0]) if firsts and all(isinstance(first, int) for first in firsts) else None


def random_feeds(running: Any, batch: int = 1, seed: int = 0) -> Arrays:
    """Return random inputs that fit the session: normal numbers, and 0 or 1 where whole numbers are wanted.

    Raises: PenjingError for another batch than the model's fixed one, another open dimension, or a strange type.
    """
    feeds, random = {}, stream(seed, "export/feeds")
    if (fixed := fixed_batch(running)) is not None and fixed != batch:
        raise PenjingError(f"The model takes batches of {fixed}, not {batch}; export it with an open batch.")
    for value in running.get_inputs():
        shape = [batch if axis == 0 and not isinstance(size, int) else size for axis, size in enumerate(value.shape)]
        if odd := [size for size in shape if not isinstance(size, int)]:
            raise PenjingError(f"Input {value.name} has the open size {odd[0]!r}; only the batch may be open.")
        if value.type not in KINDS:
            raise PenjingError(f"Input {value.name} is a {value.type}; only numbers and booleans can be made up.")
        kind = np.dtype(KINDS[value.type])
        drawn = random.standard_normal(shape) if kind.kind == "f" else random.integers(0, 2, shape)
        feeds[value.name] = np.asarray(drawn, dtype=kind)
    return feeds


def run(running: Any, feeds: Mapping[str, Any]) -> list[NDArray[Any]]:
    """Run a session on any number of samples and return its outputs.

    A model with a fixed batch gets the samples in portions; the last one is filled up with repeats, whose outputs
    are dropped.

    Raises: PenjingError when the inputs do not fit the model.
    """
    arrays = {name: np.asarray(array) for name, array in feeds.items()}
    fixed, count = fixed_batch(running), samples_in(arrays)
    if fixed is None or fixed == count:
        return _run(running, arrays)
    portions = []
    for start in range(0, count, fixed):
        rows = np.arange(start, start + fixed) % count
        portion = {name: a[rows] if a.ndim and len(a) == count else a for name, a in arrays.items()}
        portions.append([output[: min(fixed, count - start)] for output in _run(running, portion)])
    return [np.concatenate(parts) for parts in zip(*portions, strict=True)]


def samples_in(feeds: Mapping[str, NDArray[Any]]) -> int:
    """Return the batch of some feeds: dimension 0 of the first that has one."""
    return next((len(array) for array in feeds.values() if array.ndim), 0)


def as_feeds(running: Any, inputs: Any) -> Arrays:
    """Return the inputs by name: of a mapping by its keys, of a tensor or sequence the tensors in order.

    A sequence may hold more than the model reads: labels, say.
    """
    names = [value.name for value in running.get_inputs()]
    if isinstance(inputs, Mapping):
        return {name: _array(inputs[name]) for name in names if name in inputs}
    given = [value for value in (inputs if isinstance(inputs, Sequence) else [inputs]) if hasattr(value, "ndim")]
    return {name: _array(value) for name, value in zip(names, given, strict=False)}


def evaluate_onnx(path: Source, split: Split, batch: int = 256, threads: int = 1) -> float:
    """Return the top-1 accuracy of a file on a labelled split.

    Units: %.
    Of several outputs the one that is named as logits are counts, or else the first.

    Raises: DataError when the split is empty; PenjingError when that output is not [samples, classes].
    """
    running = session(path, threads)
    names = [output.name for output in running.get_outputs()]
    at = next((names.index(key) for key in KEYS if key in names), 0)
    right = count = 0
    for x, y in split.batches(batch):
        if y is None or y.ndim != 1:
            raise DataError("Accuracy needs a class for each picture, and this data has none.")
        labels = _array(y)
        scores = run(running, as_feeds(running, x))[at]
        if scores.ndim != 2 or len(scores) != len(labels):
            raise PenjingError(
                f"The file's output {names[at]} is {list(scores.shape)}; expected [{len(labels)}, classes]."
            )
        right += int((scores.argmax(axis=1) == labels).sum())
        count += len(labels)
    if not count:
        raise DataError("There is nothing to evaluate on: the split has 0 samples.")
    return 100 * right / count


def operators(path: str | os.PathLike[str]) -> dict[str, int]:
    """Count the operators a file uses, by name, sorted."""
    import onnx

    return tidy.operators(onnx.load(os.fspath(path), load_external_data=False))


def file_bytes(path: str | os.PathLike[str]) -> int:
    """Return the size of a model, weights kept in files beside it included.

    Units: bytes.
    """
    import onnx

    main = Path(path)
    model = onnx.load(os.fspath(main), load_external_data=False)
    entries = [entry for tensor in model.graph.initializer for entry in tensor.external_data]
    beside: set[Path] = {main.parent / entry.value for entry in entries if entry.key == "location"}
    return main.stat().st_size + sum(other.stat().st_size for other in beside if other.is_file())


def _run(running: Any, arrays: Arrays) -> list[NDArray[Any]]:
    try:
        outputs: list[NDArray[Any]] = running.run(None, arrays)
    except Exception as error:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
        raise PenjingError(f"The file does not take {shapes or 'nothing'}: {' '.join(str(error).split())}") from error
    return outputs


def _array(value: Any) -> NDArray[Any]:
    result: NDArray[Any] = value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)
    return result
