"""How GAL's network plays its critic: by a loss of its own, by the critic's gradient reversed, or not at all.

    python benchmarks/gal_games.py --out benchmarks/results/gal_games

The digits network, cut by ``gal`` to 0.3x of its MACs in 2 epochs, three seeds. Rows tell, without any training
afterwards, how far the outputs on the validation pictures are from the original's (divergence, nats) and how many of
these pictures are named wrongly. The test pictures are not read.
"""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from penjing import zoo
from penjing.core.plan import Plan
from penjing.core.registry import build
from penjing.data import digits
from penjing.graph.draft import Draft
from penjing.graph.trace import plain, trace
from penjing.steps.gal import gal
from penjing.steps.state import Run, State
from penjing.training.evaluate import evaluate
from rows import arguments, fill

GAMES: dict[str, dict[str, Any]] = {"passing": {}, "reversal": {"reversal": True}, "no critic": {"adversarial": 0.0}}

SEEDS = 3


def row(game: str, seed: int) -> dict[str, Any]:
    """Cut in one way with one seed, and compare with the original on validation."""
    original, data = plain(zoo.digits_net(pretrained=True)), digits()
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), {"macs": "0.3x"}, seed)
        start = time.perf_counter()
        step = gal(epochs=2, batch=32, every=1, structures="channels", penalty=0.003, **GAMES[game])
        small = step(State(copy.deepcopy(original), original, data, ((data.example(2),), {})), run).model
        seconds = time.perf_counter() - start
        run.close()
    graph = trace(small, (data.example(2),), proof=False)
    cost = build("cost", "divergence").on(data, seed).beside(original)
    seen = evaluate(small, data.val)
    whole = trace(original, (data.example(2),), proof=False)
    return {
        "game": game,
        "seed": seed,
        "divergence": cost(Draft(graph, Plan(), lambda: small, small)),
        "wrong": seen.count - seen.correct,
        "of": seen.count,
        "macs": sum(layer.macs for layer in graph.layers) / sum(layer.macs for layer in whole.layers),
        "seconds": round(seconds, 1),
    }


def rows() -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Name every row and say how it is made."""
    for game in GAMES:
        for seed in range(SEEDS):
            yield f"{game.replace(' ', '_')}_seed{seed}", partial(row, game, seed)


def main() -> None:
    """Fill the rows."""
    where = arguments(__doc__, "benchmarks/results/gal_games").parse_args()
    torch.set_num_threads(1)
    fill(where.out, rows(), where.only)


if __name__ == "__main__":
    main()
