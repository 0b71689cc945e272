"""Lightning Fabric, opened quietly: the accelerator, the precision, and several processes for one run.

Fabric takes seconds to import, so that happens inside the functions.
"""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.multiprocessing.spawn import ProcessException

from penjing.core.errors import PenjingError, TrainError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed")


def accelerator_here() -> str:
    """Return ``"cuda"`` where PyTorch sees a GPU, else ``"cpu"``."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def resolve_precision(wanted: str, accelerator: str) -> str:
    """Return the precision that ``wanted`` means here; ``"auto"`` is bf16-mixed where the hardware computes in bf16.

    Raises: TrainError for an unknown precision, and for 16-mixed on a CPU.
    """
    if wanted not in PRECISIONS:
        raise TrainError(f"There is no precision {wanted!r}; choose one of {', '.join(PRECISIONS)}.")
    if wanted == "16-mixed" and accelerator == "cpu":
        raise TrainError("precision 16-mixed needs a GPU; on a CPU choose bf16-mixed or 32-true.")
    if wanted != "auto":
        return wanted
    return "bf16-mixed" if _computes_in_bf16(accelerator) else "32-true"


def _computes_in_bf16(accelerator: str) -> bool:
    if accelerator == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Plain AVX-512 emulates bf16 more slowly than it computes in float32, so the native instructions are asked for.
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def open_fabric(accelerator: str, devices: int, precision: str) -> Fabric:
    """Return a Fabric for this many devices of this machine.

    Raises: TrainError when there are fewer GPUs.
    """
    if accelerator == "cuda" and devices > torch.cuda.device_count():
        raise TrainError(f"devices is {devices}, but PyTorch sees {torch.cuda.device_count()} GPU(s) here.")
    with hushed():
        from lightning_fabric import Fabric
        from lightning_fabric.plugins.environments import LightningEnvironment
        from lightning_fabric.strategies import DDPStrategy

        strategy: Any = "auto" if devices == 1 else DDPStrategy(start_method=_start_method(accelerator))
        # The environment is named, or Fabric would take a cluster's variables as an order to join other processes.
        plugins: Any = [LightningEnvironment()]
        return Fabric(accelerator=accelerator, strategy=strategy, devices=devices, precision=precision, plugins=plugins)


def _start_method(accelerator: str) -> Any:
    """Fork where it works: it starts at once and needs neither a main guard nor picklable models."""
    return "spawn" if accelerator == "cuda" or "fork" not in multiprocessing.get_all_start_methods() else "fork"


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Silence Fabric's greetings, and the warnings about its own way of starting processes."""
    logger = logging.getLogger("lightning_fabric")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"lightning_(fabric|utilities)")
        warnings.filterwarnings("ignore", message=r"This process .* is multi-threaded, use of fork", module="multiproc")
        import lightning_fabric  # noqa: F401 - importing it sets the level that is lowered here

        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


class Work(Protocol):
    """What runs in every process."""

    @property
    def tensors(self) -> Sequence[Tensor]:
        """The tensors whose final values the parent wants, in its own order."""

    def run(self) -> dict[str, Any]:
        """Do the work and return a small JSON report."""


def spread(
    fabric: Fabric, work: Callable[[Fabric, Any], Work], job: Any, tensors: Sequence[Tensor], report_bytes: int
) -> dict[str, Any]:
    """Run ``work(fabric, job)`` in all of Fabric's processes; the first one's tensors and report come back.

    ``work`` must be importable by name. Fabric's own return channel is not used: it is read only after the processes
    have ended, when tensors are gone and anything beyond a pipe's 64 KiB would have blocked for ever.

    Raises: TrainError with what went wrong in a process.
    """
    sizes = [tensor.numel() * tensor.element_size() for tensor in tensors]
    outbox = multiprocessing.get_context("spawn").RawArray("B", sum(sizes) + report_bytes)
    failure: Exception | None = None
    with hushed(), _environment_kept():
        try:
            fabric.launch(_enter, _Parcel(work, job, outbox, sum(sizes)))
        except ProcessException as error:
            failure = error
    box = np.frombuffer(outbox, dtype=np.uint8)
    text = box[sum(sizes) :].tobytes().rstrip(b"\0").decode()
    report: dict[str, Any] = json.loads(text) if text else {}
    if failure and "error" not in report:
        reason = str(failure).strip().splitlines()[-1]
        raise TrainError(f"Training in {fabric.world_size} processes failed: {reason}") from failure
    start = 0
    for tensor, size in zip(tensors, sizes, strict=True):
        # A copy, since a view of another type must begin at a multiple of its size.
        flat = torch.from_numpy(box[start : start + size].copy())
        with torch.no_grad():
            tensor.copy_(flat.view(tensor.dtype).view(tensor.shape))
        start += size
    if "error" in report:
        raise TrainError(report["error"])
    return report


class _Parcel:
    """What goes to each process; a plain class, because Fabric reaches into dataclasses and refuses frozen ones."""

    def __init__(self, work: Callable[[Fabric, Any], Work], job: Any, outbox: Any, offset: int) -> None:
        self.work, self.job, self.outbox, self.offset = work, job, outbox, offset


def _enter(fabric: Fabric, parcel: _Parcel) -> None:
    """Run in each process."""
    # A forked process inherits an OpenMP pool whose threads do not exist, and would wait for them for ever. The pool
    # belongs to the thread that made it, so a new thread gets a new pool.
    with ThreadPoolExecutor(1) as fresh:
        fresh.submit(_work, fabric, parcel).result()


def _work(fabric: Fabric, parcel: _Parcel) -> None:
    with hushed():
        running = parcel.work(fabric, parcel.job)
        try:
            report = running.run()
        except PenjingError as error:
            report = {"error": str(error)}
    if fabric.global_rank != 0:
        return
    box = np.frombuffer(parcel.outbox, dtype=np.uint8)
    start = 0
    for tensor in running.tensors:
        flat = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
        box[start : start + flat.size] = flat
        start += flat.size
    assert start == parcel.offset, "the processes disagree about the model's tensors"
    text = json.dumps(report).encode()
    assert len(text) <= len(box) - start, "the report outgrew its room"
    box[start : start + len(text)] = np.frombuffer(text, dtype=np.uint8)


@contextlib.contextmanager
def _environment_kept() -> Iterator[None]:
    """Undo what launching writes into the environment, or a second run would meet the first one's port."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)
