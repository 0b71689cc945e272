"""An exported file as a module, so that whatever judges a network can judge the file that is shipped."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, nn

from penjing.exporting.session import as_feeds, run, session


class FileModule(nn.Module):
    """A file, run by ONNX Runtime on as many threads as torch takes; nothing in it can be trained.

    It returns what the file does: a tensor, or several by the names of the outputs.

    Raises: PenjingError for what is no file of a model.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__()
        self._running = session(path, threads=torch.get_num_threads())
        self._names = [value.name for value in self._running.get_outputs()]

    def forward(self, *inputs: Any) -> Tensor | dict[str, Tensor]:
        """Return what the file makes of a batch, of any size.

        Raises: PenjingError for inputs that do not fit the file.
        """
        outputs = [torch.from_numpy(output) for output in run(self._running, as_feeds(self._running, list(inputs)))]
        return outputs[0] if len(outputs) == 1 else dict(zip(self._names, outputs, strict=True))
