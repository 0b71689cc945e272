"""How long the exact solver takes: 200 sites of 30 counts under 4 budgets, on data made to look like layers.

    python benchmarks/solver.py --out benchmarks/results/solver.json

A site's loss falls convexly with its count; its costs rise in steps of 1, 4, 8 or 16 counts, each of another size a
budget; budgets leave 0.4 to 0.8 of what all sites cost. Ten draws; nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from penjing.allocators.solve import solve
from penjing.core.files import write_whole
from penjing.core.random import stream
from rows import machine

SITES, OPTIONS, BUDGETS, DRAWS = 200, 30, 4, 10


def problem(seed: int) -> tuple[list[Any], list[Any], Any]:
    """Return losses, costs and limits of one draw."""
    random = stream(seed, "benchmarks/solver")
    losses, costs = [], []
    for _ in range(SITES):
        kept = np.arange(1, OPTIONS + 1) / OPTIONS
        scale, bend = random.lognormal(0, 1.5), random.uniform(1, 4)
        losses.append(scale * (1 - kept) ** bend)
        step = int(random.choice([1, 4, 8, 16]))
        stair = np.ceil(np.arange(1, OPTIONS + 1) / step) * step / OPTIONS
        sizes, fixed = random.lognormal(0, 1.2, BUDGETS), random.uniform(0, 0.3, BUDGETS)
        costs.append(sizes * (fixed + (1 - fixed) * stair[:, None]))
    limits = random.uniform(0.4, 0.8, BUDGETS) * sum(c[-1] for c in costs)
    return losses, costs, limits


def main() -> None:
    """Solve ten draws and write down how long each took and how far it may be from the best."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/solver.json"))
    out = parser.parse_args().out
    rows = []
    for seed in range(DRAWS):
        losses, costs, limits = problem(seed)
        start = time.perf_counter()
        found = solve(losses, costs, limits)
        seconds = time.perf_counter() - start
        assert found is not None
        spent = sum(c[i] for c, i in zip(costs, found.choice, strict=True)) / limits
        rows.append(
            {"seed": seed, "seconds": seconds, "gap": found.gap, "proven": found.proven, "loss": found.loss,
             "bound": found.bound, "spent": spent.tolist()}
        )  # fmt: skip
        print(f"draw {seed}: {seconds:.2f} s, gap {100 * found.gap:.3f} %, most of a budget {spent.max():.4f}")
    facts = {"sites": SITES, "options": OPTIONS, "budgets": BUDGETS, "rows": rows, **machine()}
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, json.dumps(facts | {"date": time.strftime("%Y-%m-%d")}, indent=1).encode())
    seconds = sorted(row["seconds"] for row in rows)
    print(f"median {seconds[len(seconds) // 2]:.2f} s, longest {seconds[-1]:.2f} s")


if __name__ == "__main__":
    main()
