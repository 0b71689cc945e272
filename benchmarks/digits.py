"""The demo's promise over five splits of the digits: train the baseline, cut it to 0.24x MACs, compare on test.

    python benchmarks/digits.py --out benchmarks/results/digits

Makes its baselines with train_digits.py, one a split, so that no network has seen the test pictures of its split. Each
row reads those 360 once a network (the original, the result, and the same widths at random and from scratch), and once
more when the baseline is made.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from penjing import api
from penjing import recipe as recipes
from penjing.data import digits
from rows import arguments, fill
from train_digits import train

RECIPE = Path(__file__).parent.parent / "examples" / "digits.yaml"


def row(split: int) -> dict[str, Any]:
    """Run the demo's recipe on one split, with the same widths at random and from scratch beside it."""
    steps = recipes.read(RECIPE)
    model, baseline = train(split, epochs=12)
    data = digits(split=split)
    result = api.run(
        copy.deepcopy(model), data, steps.steps, steps.budget, seed=split, references=("random", "scratch")
    ).results
    rows = {r["name"]: r for r in result["rows"]}
    return {
        "split": split,
        "wrong": {name: r["wrong"] for name, r in rows.items()},
        "of": rows["original"]["of"],
        "macs": rows["original"]["macs"] / rows["penjing"]["macs"],
        "speed-up": rows["penjing"]["ratio"],
        "original latency": rows["original"]["latency"],
        "baseline": baseline["val_correct"],
        "test reads": result["test_reads"],
    }


def rows() -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Name the five rows."""
    for split in range(5):
        yield f"split{split}", partial(row, split)


def main() -> None:
    """Fill the rows."""
    parser = arguments(__doc__, "benchmarks/results/digits")
    where = parser.parse_args()
    torch.set_num_threads(1)
    fill(where.out, rows(), where.only)


if __name__ == "__main__":
    main()
