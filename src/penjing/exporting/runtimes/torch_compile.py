"""The network itself, compiled by torch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch.utils import _pytree as tree

from penjing.core.errors import PenjingError, PlanError, reason
from penjing.core.registry import register
from penjing.exporting.inputs import batch_of, with_batch
from penjing.exporting.runtimes.subject import Subject, check_precision
from penjing.exporting.silence import silence


@register("runtime")
@dataclass(frozen=True)
class torch_compile:  # noqa: N801 - the name a target writes
    """Run the network in torch, compiled for its input's size; wants the module, since torch reads no ONNX.

    ``backend`` is torch's own, ``inductor``, which needs a C++ compiler, or another that torch knows.
    """

    backend: str = "inductor"

    reads_files = False
    own_threads = True

    def version(self) -> str:
        """Return the version of torch."""
        return str(torch.__version__)

    def precisions(self) -> list[str]:
        """Return both: where the processor has no bf16, torch computes it by other means, slowly."""
        return ["fp32", "bf16"]

    def open(self, subject: Subject, threads: int, batch: int | None, precision: str) -> Callable[[], Sequence[Any]]:
        """Return what runs the module once; torch's number of threads is set meanwhile.

        Raises: PlanError where there is only a file; PenjingError where torch cannot compile or run the module.
        """
        check_precision("torch_compile", precision, self.precisions())
        model = subject.model
        if model is None:
            raise PlanError(
                f"torch_compile runs modules, and {subject.name} is a file alone; give a run's folder or a bundle, or "
                "measure on onnxruntime or openvino."
            )
        args, kwargs = with_batch(subject.example, batch or batch_of(subject.example) or 1)
        private = copy.deepcopy(model).eval()
        compiled = torch.compile(private, backend=self.backend, dynamic=False)

        def once() -> list[Any]:
            before = torch.get_num_threads()
            torch.set_num_threads(threads)
            try:
                with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                    return tree.tree_leaves(compiled(*args, **kwargs))
            finally:
                torch.set_num_threads(before)

        try:
            with silence(), torch._inductor.config.patch(compile_threads=1):
                once()
        except Exception as error:
            raise PenjingError(f"torch cannot compile {subject.name}: {reason(error)}") from error
        return once

    def profile(self, subject: Subject, threads: int, batch: int | None, precision: str) -> NoReturn:
        """Refuse: compiled code mixes layers, and tells no times of them.

        Raises: PlanError.
        """
        raise PlanError("torch_compile tells no times of single layers; profile on onnxruntime or openvino.")
