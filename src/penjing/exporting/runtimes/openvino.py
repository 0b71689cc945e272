"""OpenVINO on the CPU, an extra."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from penjing.core.errors import MissingExtra, PenjingError
from penjing.core.registry import register
from penjing.exporting.runtimes.operators import Executed, layers_in, named
from penjing.exporting.runtimes.subject import RUNS, WARMUP, LayerTime, Subject, check_precision, typical
from penjing.exporting.session import KINDS, fixed_batch, random_feeds

HINTS = {"fp32": "f32", "bf16": "bf16"}
"""What OpenVINO calls the precisions."""


@register("runtime")
@dataclass(frozen=True)
class openvino:  # noqa: N801 - the name a target writes
    """Run ONNX files on OpenVINO's processor kernels: one stream, set for latency, in fp32 or bf16 as asked.

    Quantised layers run in int8 whatever is asked. bf16 needs a processor that multiplies in it.
    """

    reads_files = True
    own_threads = True

    def version(self) -> str:
        """Return the version of the library.

        Raises: MissingExtra.
        """
        return str(_library().__version__).partition("-")[0]

    def precisions(self) -> list[str]:
        """Return fp32, and bf16 where the processor multiplies in it.

        Raises: MissingExtra.
        """
        able = _library().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        return ["fp32", *(["bf16"] if "BF16" in able else [])]

    def open(self, subject: Subject, threads: int, batch: int | None, precision: str) -> Callable[[], Sequence[Any]]:
        """Return what runs the file once.

        Raises: MissingExtra without the library; PlanError for a precision that the processor does not have;
        PenjingError for what is no model, or does not take this batch.
        """
        check_precision("openvino", precision, self.precisions())
        request = _request(subject, threads, batch, precision, False)

        def once() -> list[Any]:
            return list(request.infer(share_outputs=True).values())

        return once

    def profile(self, subject: Subject, threads: int, batch: int | None, precision: str) -> list[LayerTime]:
        """Return the time of each operator of the graph that the runtime makes of the file, by its own counters.

        Raises: as ``open`` does.
        """
        check_precision("openvino", precision, self.precisions())
        request = _request(subject, threads, batch, precision, True)
        times: dict[tuple[str, str, str], list[float]] = {}
        for _ in range(WARMUP + RUNS):
            request.infer()
            for one in request.get_profiling_info():
                if one.status == one.Status.EXECUTED:
                    key = one.node_name, one.node_type, one.exec_type
                    times.setdefault(key, []).append(one.real_time.total_seconds() * 1e3)
        # What takes less than the clock's microsecond counts as executed in some inferences only.
        filled = {key: [*ms, *[0.0] * (WARMUP + RUNS - len(ms))] for key, ms in times.items()}
        rows = [Executed(name, kind, kernel, typical(ms[WARMUP:])) for (name, kind, kernel), ms in filled.items()]
        return named(rows, layers_in(subject.file))


@dataclass(frozen=True)
class _Input:
    """An input, described as ONNX Runtime does."""

    name: str
    shape: list[Any]
    type: str


@dataclass(frozen=True)
class _Inputs:
    inputs: Sequence[_Input]

    def get_inputs(self) -> Sequence[_Input]:
        return self.inputs


def _request(subject: Subject, threads: int, batch: int | None, precision: str, counted: bool) -> Any:
    """Return an inference request with its inputs set."""
    library = _library()
    core = library.Core()
    source = subject.file
    try:
        model = core.read_model(source if isinstance(source, bytes) else os.fspath(source))
    except Exception as error:
        reason = " ".join(str(error).split())
        raise PenjingError(f"{subject.name} is not a model OpenVINO can open: {reason}") from error
    described = _Inputs([_described(value) for value in model.inputs])
    feeds = random_feeds(described, batch or fixed_batch(described) or 1)
    try:
        model.reshape({name: list(array.shape) for name, array in feeds.items()})
        options = {
            "INFERENCE_PRECISION_HINT": HINTS[precision], "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY", "PERF_COUNT": counted,
        }  # fmt: skip
        request = core.compile_model(model, "CPU", options).create_infer_request()
        for name, array in feeds.items():
            request.set_tensor(name, library.Tensor(array))
        request.infer()
    except Exception as error:
        reason = " ".join(str(error).split())
        raise PenjingError(f"{subject.name} cannot be run by OpenVINO: {reason}") from error
    return request


def _described(value: Any) -> _Input:
    shape = [size.get_length() if size.is_static else str(size) for size in value.partial_shape]
    kind = value.element_type.to_dtype().name
    types = {numpy: name for name, numpy in KINDS.items()}
    return _Input(value.any_name, shape, types.get(kind, kind))


def _library() -> Any:
    try:
        import openvino
    except ImportError:
        raise MissingExtra("The runtime openvino", "openvino", "openvino") from None
    return openvino
