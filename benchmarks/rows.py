"""Rows of a benchmark: one JSON file each, written when the row is done, skipped when it is there without an error."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from penjing.core.errors import PenjingError
from penjing.core.files import write_whole
from penjing.exporting.measure import cpu_name

if TYPE_CHECKING:
    from penjing.data import Data

Row: TypeAlias = tuple[str, Callable[[], dict[str, Any]]]
"""Its name, and what makes it."""

FEW = 1000
"""Validation pictures of a row on fewer than all training pictures."""


def machine() -> dict[str, Any]:
    """Return what a row must say about where it ran."""
    import onnxruntime
    import torch

    import penjing

    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "versions": {
            "penjing": penjing.__version__,
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "onnxruntime": onnxruntime.__version__,
        },
    }


def short(data: Data, pictures: int | None, seed: int) -> Data:
    """Return the data, with as many training pictures as a row may have and few for validation; whole for None."""
    if pictures is None:
        return data
    val = data.val.subset(range(min(FEW, len(data.val))))
    return replace(data, train=data.calibration_split(pictures, seed), val=val)


def scale(where: argparse.Namespace, epochs: int) -> str:
    """Return the part of a name that says how long a row is trained."""
    return f"{epochs}epochs" + ("" if where.pictures is None else f"_{where.pictures}pictures")


def arguments(doc: str | None, out: str) -> argparse.ArgumentParser:
    """Return what every benchmark of rows asks for: where they lie, and which of them."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(out))
    parser.add_argument("--only", default="", help="run rows whose name contains this")
    return parser


def done(path: Path) -> bool:
    """Tell whether a row was made before; one that failed is to be tried again."""
    return path.exists() and "error" not in json.loads(path.read_text())


def fill(out: Path, rows: Iterable[tuple[str, Callable[[], dict[str, Any]]]], only: str = "") -> None:
    """Run every row whose name contains ``only`` and that is not done yet; tell each row as it is done."""
    out.mkdir(parents=True, exist_ok=True)
    for name, work in rows:
        path = out / f"{name}.json"
        if only not in name:
            continue
        if done(path):
            print(f"{name}: done before", flush=True)
            continue
        start = time.time()
        try:
            facts = work()
        except PenjingError as error:
            facts = {"error": f"{type(error).__name__}: {error}"}
        # A row that can be gone on with has counted its minutes itself, over all processes.
        facts = {"row": name, "minutes": round((time.time() - start) / 60, 2), **facts, **machine()}
        facts["date"] = time.strftime("%Y-%m-%d")
        write_whole(path, json.dumps(facts, indent=1, default=float).encode())
        print(f"{name}: {json.dumps({k: v for k, v in facts.items() if isinstance(v, int | float | str)})}", flush=True)


def main(doc: str | None, out: str, rows: Callable[[argparse.Namespace], Iterable[Row]], *needs: str) -> None:
    """Read where things lie, the folders or files that are needed among them, and fill the rows on so many threads."""
    import torch

    parser = arguments(doc, out)
    for need in needs:
        parser.add_argument(f"--{need}", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    where = parser.parse_args()
    torch.set_num_threads(where.threads)
    fill(where.out, rows(where), where.only)


def answer(
    parser: argparse.ArgumentParser,
    rows: Callable[[argparse.Namespace], Iterable[Row]],
    *needs: str,
    tables: Callable[[Path], str] | None = None,
    drawn: Callable[[Path], str] | None = None,
) -> None:
    """Add the flags of rows that train, and fill the rows, or name, show or draw them, as is asked.

    ``needs`` are the folders without which no row is made; ``tables`` and ``drawn`` tell of a folder of rows.
    """
    import torch

    for need in needs:
        parser.add_argument(f"--{need}", type=Path)
    parser.add_argument("--pictures", type=int, help="train on so many pictures alone, for short rows")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--list", action="store_true", help="name the rows")
    if tables is not None:
        parser.add_argument("--show", action="store_true", help="print the tables as Markdown")
    if drawn is not None:
        parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the rows")
    where = parser.parse_args()
    torch.set_num_threads(where.threads)
    if tables is not None and where.show:
        print(tables(where.out))
    elif drawn is not None and where.plot is not None:
        if not any(where.out.glob("*.json")):
            parser.error(f"{where.out} holds no rows to draw yet.")
        print(write_whole(where.plot, drawn(where.out).encode()))
    elif where.list:
        print("\n".join(name for name, _ in rows(where) if where.only in name))
    elif any(getattr(where, need) is None for need in needs):
        parser.error(f"no row can be made without {' and '.join(f'--{need}' for need in needs)}.")
    else:
        fill(where.out, rows(where), where.only)
