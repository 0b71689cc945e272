"""A teacher that answered beforehand: what it says of every view of every training picture, in a file.

A picture is known by its own numbers, not by its place: whatever order, batch or process asks, what comes back is what
the teacher said of this very picture, and one that was never shown is put to the teacher itself.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from penjing.core import console
from penjing.core.errors import TrainError
from penjing.core.modes import modes_kept
from penjing.graph import form
from penjing.training.state import device_of

if TYPE_CHECKING:
    from penjing.data.splits import Split

BATCH = 256
"""Pictures that the teacher is shown at a time."""


class Remembered(nn.Module):
    """Answers like ``network``, from a file where it holds the picture; ``fill`` makes the file.

    There is nothing to listen at on the way to an answer that is read: ``answers_alone`` says so to terms.

    Shapes: x [n, ...] → what the network returns, one tensor [n, ...], in float32.
    """

    answers_alone = True

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.path = Path()
        self._rows: Any = None
        self._known: tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is read from the file: another process reads it itself."""
        return {**self.__dict__, "_rows": None, "_known": None}

    def fill(self, split: Split, views: int, seed: int, folder: Path) -> None:
        """Ask the network about all views of a split, unless the file in ``folder`` is there already.

        Raises: TrainError for a network that returns several tensors, or pictures that differ each time they are read.
        """
        first = next(iter(self._view(split, seed, 0)))
        self.path = folder / f"answers-{self._identity(first, len(split), views, seed)}.npy"
        if not self.path.is_file():
            self._write(split, views, seed)
        self._open()
        if not self._found(next(iter(self._view(split, seed, 0))))[1].all():
            raise TrainError(
                "The pictures change each time they are read, so that a teacher cannot answer beforehand: leave views "
                "out, or give data whose augmentation depends on the seed and the epoch alone."
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return the answers."""
        rows, known = self._found(x)
        answers = torch.empty((len(x), *self._rows["answer"].shape[1:]), dtype=torch.float32)
        if known.any():
            answers[torch.from_numpy(known)] = torch.from_numpy(self._rows["answer"][rows[known]])
        answers = answers.to(x.device)
        if not known.all():
            asked = torch.from_numpy(~known).to(x.device)
            answers[asked] = one_tensor(self.network(x[asked])).float()
        return answers

    @staticmethod
    def _view(split: Split, seed: int, view: int) -> Any:
        return (x for x, _ in split.batches(BATCH, seed=seed, epoch=0, augment=True, view=view))

    def _identity(self, first: Tensor, count: int, views: int, seed: int) -> str:
        """Return what tells this file from that of another teacher, other pictures, or other views."""
        told = hashlib.sha256(f"{type(self.network).__qualname__} {count} {views} {seed} {torch.__version__}".encode())
        for name, tensor in form.tensors(self.network).items():
            told.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            told.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        told.update(_marks(first).tobytes())
        return told.hexdigest()[:24]

    @torch.no_grad()
    def _write(self, split: Split, views: int, seed: int) -> None:
        home = device_of(self.network)
        device, beside = home, self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        if torch.cuda.is_available():
            device = torch.device("cuda")
        total, done, table = len(split) * views, 0, None
        try:
            with modes_kept(self.network), console.bar("the teacher answers", total) as advance:
                self.network.eval().to(device)
                for view in range(views):
                    for x in self._view(split, seed, view):
                        said = one_tensor(self.network(x.to(device))).float().cpu().numpy()
                        if table is None:
                            kind = np.dtype([("mark", "<u8"), ("answer", "<f4", said.shape[1:])])
                            table = np.lib.format.open_memmap(beside, mode="w+", dtype=kind, shape=(total,))
                            table["mark"] = 0
                        part = table[done : done + len(x)]
                        part["mark"], part["answer"] = _marks(x)[: len(part)], said[: len(part)]
                        done += len(x)
                        advance(len(x), f"view {view + 1}/{views}")
            if table is not None:
                table.flush()
            beside.replace(self.path)
        except OSError as error:
            raise TrainError(f"{self.path} cannot be written: {error.strerror or error}.") from error
        finally:
            self.network.to(home)
            beside.unlink(missing_ok=True)

    def _open(self) -> None:
        self._rows = np.load(self.path, mmap_mode="r", allow_pickle=False)
        marks = np.ascontiguousarray(self._rows["mark"])
        order = np.argsort(marks, kind="stable")
        self._known = marks[order], order

    def _found(self, x: Tensor) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Return the row of each picture, and whether there is one."""
        if self._known is None:
            self._open()
        assert self._known is not None
        marks, order = self._known
        asked = _marks(x)
        at = np.searchsorted(marks, asked).clip(max=len(marks) - 1)
        return order[at], marks[at] == asked


def one_tensor(outputs: Any) -> Tensor:
    """Return the only tensor among what a teacher returns.

    Raises: TrainError where it returns several, or none.
    """
    found = [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]
    if len(found) != 1:
        raise TrainError(f"The teacher returns {len(found)} tensors, and answers beforehand are one: leave views out.")
    return found[0]


def _marks(x: Tensor) -> npt.NDArray[np.uint64]:
    """Return a number that tells each picture from all others, from its bytes."""
    numbers = x.detach().to("cpu", torch.float32).contiguous().numpy().reshape(len(x), -1)
    return np.frombuffer(b"".join(hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in numbers), "<u8")
