"""How far a network may be cut: the demo's network under tighter and tighter budgets, accuracy beside measured time.

    python benchmarks/frontier.py --out benchmarks/results/frontier

Each row is the demo's recipe with another bound on the MACs, once as it is and once without training; it reads the 360
test pictures once a network. `draw.py` makes a picture of the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from penjing import api, zoo
from penjing import recipe as recipes
from penjing.data import digits
from rows import arguments, fill

RECIPE = Path(__file__).parent.parent / "examples" / "digits.yaml"
SHARES = (0.7, 0.5, 0.35, 0.24, 0.17, 0.12, 0.08, 0.05, 0.03, 0.02)


def row(share: float, trained: bool) -> dict[str, Any]:
    """Run the recipe within this share of the MACs."""
    read = recipes.read(RECIPE, {"budget.macs": f"{share}x"})
    steps = [step for step in read.steps if trained or type(step).__name__ != "train"]
    result = api.run(zoo.digits_net(pretrained=True), digits(), steps, read.budget, seed=read.seed).results
    before, after = result["rows"]
    kept = ("accuracy", "wrong", "of", "macs", "params", "size", "latency")
    return {
        "budget": f"macs={share}x",
        "epochs": len(result["training"]),
        "original": {key: before[key] for key in kept},
        "penjing": {key: after[key] for key in kept},
        "speed-up": after["ratio"],
        "test reads": result["test_reads"],
    }


def rows() -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Name the rows."""
    for trained in (False, True):
        for share in SHARES:
            yield f"macs{share}x_{'trained' if trained else 'oneshot'}", partial(row, share, trained)


def main() -> None:
    """Fill the rows."""
    parser = arguments(__doc__, "benchmarks/results/frontier")
    where = parser.parse_args()
    torch.set_num_threads(1)
    fill(where.out, rows(), where.only)


if __name__ == "__main__":
    main()
