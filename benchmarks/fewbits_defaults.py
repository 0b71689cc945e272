r"""Defaults of methods in few bits against what else they could be, on validation pictures of the digits.

    python benchmarks/fewbits_defaults.py --out benchmarks/results/fewbits_defaults

Every row rounds the trained network, trains it as long as the others, and tells accuracy and divergence on validation;
test is never read. The first row of a method is its default. Two seeds draw the pictures that rounding begins with and
the order of training. ``--show`` prints the means.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch

from penjing import zoo
from penjing.core.plan import Plan
from penjing.core.registry import build, register
from penjing.data import digits
from penjing.graph.draft import Draft
from penjing.graph.trace import plain, trace
from penjing.quantizers.product import product
from penjing.quantizers.ttq import TrainedTernary, ttq
from penjing.rewrites.rounded import method
from penjing.steps.quantize import quantize
from penjing.steps.state import Run, State
from penjing.steps.train import train
from penjing.training.evaluate import evaluate
from rows import Row, arguments, fill

SEEDS = (0, 1)

LR, SUMMED_LR = 0.01, 1e-4
"""Rates of training; the second is the paper's for levels whose gradients are summed."""


@method
@register("quantizer")
@dataclass(frozen=True)
class product_by_weight(product):  # noqa: N801  (registered under its own name)
    """Product codes that are nearest by the weights, not by what layers write."""

    sees: ClassVar[bool] = False


class TernaryAtOne(TrainedTernary):
    """Both scales begin at the largest weight, as those of weights that are divided by it begin at 1."""

    @torch.no_grad()
    def start(self, weight: torch.Tensor) -> torch.Tensor:
        """Set the scales."""
        latent = super().start(weight)
        self.positive.copy_(weight.abs().max())
        self.negative.copy_(weight.abs().max())
        return latent


@method
@register("quantizer")
@dataclass(frozen=True)
class ttq_at_one(ttq):  # noqa: N801  (registered under its own name)
    """Ternary weights whose scales begin at the largest weight."""

    def weights(self, shape: tuple[int, ...], bits: int) -> TernaryAtOne:
        """Return what rounds a weight."""
        return TernaryAtOne(bits, self)


METHODS: Mapping[str, tuple[Any, int, float]] = {
    "lsq_mse": ("lsq", 2, LR),
    "lsq_mean": ({"lsq": {"start": "mean"}}, 2, LR),
    "lsq_max": ({"lsq": {"start": "max"}}, 2, LR),
    "dsq_range": ({"dsq": {"start": "range"}}, 2, LR),
    "dsq_mse": ({"dsq": {"start": "mse"}}, 2, LR),
    "dsq_1_range": ({"dsq": {"start": "range"}}, 1, LR),
    "dsq_1_mse": ({"dsq": {"start": "mse"}}, 1, LR),
    "dsq_4_range": ({"dsq": {"start": "range"}}, 4, LR),
    "dsq_4_mse": ({"dsq": {"start": "mse"}}, 4, LR),
    "ttq_mean": ("ttq", 2, LR),
    "ttq_one": ("ttq_at_one", 2, LR),
    "xnor_by_count": ("xnor", 1, LR),
    "xnor_plain": ({"xnor": {"by_count": False}}, 1, LR),
    "codebook_mean": ("codebook", 2, LR),
    "codebook_sum": ({"codebook": {"gradient": "sum"}}, 2, SUMMED_LR),
    "product_by_output": ("product", 8, LR),
    "product_by_weight": ("product_by_weight", 8, LR),
}
"""By the name of the rows: the method, bits and the rate of training."""


def row(name: str, seed: int, epochs: int) -> dict[str, Any]:
    """Round, train and judge by validation; return the row."""
    chosen, bits, rate = METHODS[name]
    model, data = plain(zoo.digits_net(pretrained=True)).eval(), digits()
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), seed=seed)
        start = State(model, model, data, ((data.example(2),), {}))
        rounded = quantize(chosen, bits=bits)(start, run)
        trained = train(epochs=epochs, lr=rate, terms=("soft_targets",))(rounded, run)
        run.close()
    cost = build("cost", "divergence").on(data, seed).beside(model)
    graph = trace(model, *start.example, proof=False)
    away = [cost(Draft(graph, Plan(), lambda one=one: one.model)) for one in (rounded, trained)]
    return {
        "method": name, "bits": bits, "seed": seed, "epochs": epochs, "lr": rate,
        "validation pictures": len(data.val),
        "before training": evaluate(rounded.model, data.val).accuracy,
        "after training": evaluate(trained.model, data.val).accuracy,
        "divergence before": away[0], "divergence after": away[1], "test reads": data.test_reads,
    }  # fmt: skip


def rows(where: argparse.Namespace) -> Iterator[Row]:
    """Name every row and say how it is made."""
    for seed in SEEDS:
        for name in METHODS:
            yield f"digits_{name}_seed{seed}", partial(row, name, seed, where.epochs)


def table(out: Path) -> str:
    """Return the means over the seeds that are done, as a table."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(out.glob("*.json")):
        if "error" not in (one := json.loads(path.read_text())):
            found.setdefault(one["method"], []).append(one)
    lines = ["| | bits | before training | after | divergence after |", "|---|---|---|---|---|"]
    for name in (name for name in METHODS if name in found):
        mine = found[name]
        means = [sum(one[key] for one in mine) / len(mine)
                 for key in ("before training", "after training", "divergence after")]  # fmt: skip
        lines.append(f"| {name} | {mine[0]['bits']} | {means[0]:.1f} | {means[1]:.1f} | {means[2]:.3f} |")
    return "\n".join(lines)


def main() -> None:
    """Fill the rows, or show them."""
    parser = arguments(__doc__, "benchmarks/results/fewbits_defaults")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--show", action="store_true")
    where = parser.parse_args()
    torch.set_num_threads(1)
    print(table(where.out)) if where.show else fill(where.out, rows(where), where.only)


if __name__ == "__main__":
    main()
