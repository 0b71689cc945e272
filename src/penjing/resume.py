"""Go on where a run was stopped: what identifies a run, and what is kept of each step that is done."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import penjing
from penjing.core.errors import ResumeError
from penjing.core.plain import told
from penjing.core.registry import build
from penjing.data.data import Data
from penjing.exporting import bundle
from penjing.exporting.measure import cpu_name, runtime_name
from penjing.graph import form
from penjing.steps.grown import grown_before
from penjing.steps.state import Run, State

SUFFIX = ".done"


# ------------------------------------------------------------------------------------------------- which run it is


def identity(
    original: nn.Module,
    data: Data | None,
    steps: Sequence[Any],
    options: Mapping[str, Any],
    tutor: nn.Module | None = None,
) -> dict[str, Any]:
    """Return what makes a run this one: two runs with equal identities end with equal weights."""
    return {
        **{name: told(value) for name, value in options.items()},
        "network": type(original).__name__,
        "weights": _digest(original),
        "data": None if data is None else _described(data),
        **({} if tutor is None else {"teacher": f"{type(tutor).__name__} {_digest(tutor)}"}),
        "steps": [told(step) for step in steps],
        "torch threads": torch.get_num_threads(),
        "versions": [penjing.__version__, str(torch.__version__), runtime_name()],
        "processor": cpu_name(),
    }


def _digest(model: nn.Module) -> str:
    found = hashlib.sha256()
    for name, tensor in form.tensors(model).items():
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]


def _of_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _described(data: Data) -> dict[str, Any]:
    labels = hashlib.sha256()
    for split in (data.train, data.val):
        labels.update(np.ascontiguousarray(split.labels).tobytes())
    read = {name: told(getattr(data.train, name, None)) for name in ("mean", "std", "scale", "padding", "flip")}
    return {
        "name": data.name, "train": len(data.train), "val": len(data.val), "labels": labels.hexdigest()[:16],
        "shape": list(data.shape), **read,
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------- what is done


def keep(state: State, run: Run) -> None:
    """Keep the state after the step that ``run.at`` names; those kept before it go.

    Raises: BundleError when it cannot be written.
    """
    if not run.resumable:
        return
    facts = {
        "book": run.book,
        "int8": told(state.int8),
        "files": {name: [path.name, _of_file(path)] for name, path in state.files.items()},
        "seconds": time.monotonic() - run.started,
    }
    kept = bundle.write(run.folder / f"{run.at}{SUFFIX}", state.model, plans=state.plans, facts=facts)
    run.journal.note("step done", step=run.at)
    for older in run.folder.glob(f"*{SUFFIX}"):
        if older != kept:
            shutil.rmtree(older, ignore_errors=True)
    for training in run.folder.glob("*.training"):
        training.unlink(missing_ok=True)


def go_on(state: State, run: Run, names: Sequence[str]) -> tuple[State, int]:
    """Return the state after the last step that is done, and how many are; the book is that of then.

    Raises: ResumeError when what was kept cannot be used.
    """
    for done in range(len(names), 0, -1):
        kept = run.folder / f"{names[done - 1]}{SUFFIX}"
        if kept.exists():
            return _restored(state, run, kept), done
    return state, 0


def _restored(state: State, run: Run, kept: Path) -> State:
    manifest = bundle.read_manifest(kept)
    try:
        run.book = {str(name): list(facts) for name, facts in manifest.facts["book"].items()}
        run.started = time.monotonic() - float(manifest.facts["seconds"])
        files = {
            str(name): _sound(run.folder / Path(file).name, of) for name, (file, of) in manifest.facts["files"].items()
        }
        int8 = build("step", manifest.facts["int8"]) if manifest.facts["int8"] else None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ResumeError(
            f"{kept} is not what this run wrote ({error!r}); remove {run.folder} to start over."
        ) from None
    state = grown_before(state, run)
    model = bundle.load(kept, lambda: state.original)  # which it copies
    return replace(state, model=model, plans=bundle.plans_of(kept), files=files, int8=int8)


def _sound(file: Path, of: str) -> Path:
    """Return a file that an earlier process wrote.

    Raises: ResumeError when it is another one by now.
    """
    if file.is_symlink() or not file.is_file() or _of_file(file) != of:
        raise ResumeError(f"{file} is not the file that this run wrote; remove {file.parent} to start over.")
    return file
