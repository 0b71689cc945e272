"""Runs killed (SIGKILL) at ten random moments each: what is resumed must end as what nobody disturbed, to the bit.

    python benchmarks/kills.py --out benchmarks/results/kills

Cuts the digits network that penjing carries, on few pictures and trials, by ``penjing run`` in a process of its own.
First it runs undisturbed. A moment is drawn from each tenth of its progress (half time, half trials), with a fixed
seed, and told by progress too: so many lines of the journal, and so long after the last of them, or as the next one
comes. Rows that end in ``_again`` kill one run ten times; of ``ddpg`` and ``abcpruner`` ten runs are killed once each
as well. Rows of ``workers`` are not killed: processes and Ray actors measure the plans of one search. Plans, trials,
weights and files are compared; test is read once a network, as in every run, and told to nobody.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from penjing.core.errors import ResumeError
from penjing.core.journal import NAME as JOURNAL
from penjing.exporting.bundle import BUNDLE, MANIFEST, WEIGHTS
from penjing.publish import RESULTS
from penjing.results import BEGUN
from rows import arguments, fill

KILLS = 10
SEED = 5

JUDGED = {"error": {"images": 48, "recalibrate": 1}}
TRAINING = {"train": {"epochs": 1, "batch": 64, "lr": 0.02}}


def searched(allocator: dict[str, Any]) -> list[Any]:
    """Return the steps of a search, and what recovers the network after it."""
    cut = {"criterion": "l1", "allocator": allocator, "measure": JUDGED}
    return [{"prune": cut}, {"reconstruct": {"images": 64}}, "recalibrate", TRAINING]


WIDTHS = {"evolution": {"population": 6, "iterations": 2, "parents": 3, "mutations": 3, "crossovers": 3}}

STEPS: dict[str, list[Any]] = {
    "abcpruner": searched({"abcpruner": {"sources": 4, "cycles": 4}}),
    "ddpg": searched({"ddpg": {"trials": 32}}),
    "n2n": [{"n2n": {"updates": 3, "rollouts": 2, "taught": 1, "images": 64, "epochs": 1}}],
    "metapruning": [
        {"metapruning": {"epochs": 1, "images": 128, "start": "generated", "allocator": WIDTHS}},
        TRAINING,
    ],
    "rbp": [{"rbp": {"epochs": 0.5, "batch": 16, "images": 64}}, "recalibrate"],
    "lowrank": [
        {"factorize": {"rewrite": "cp", "ranks": {"ratio": 8}, "include": ["block2*"]}},
        {"factorize": {"allocator": {"knapsack": {"trials": 32}}, "measure": JUDGED}},
        {"reconstruct": {"images": 64}},
        "recalibrate",
        TRAINING,
    ],
    "evolution": searched(WIDTHS),
    "knapsack": searched({"knapsack": {"trials": 32}}),
}


@dataclass(frozen=True)
class Moment:
    """A point of a run's progress: so many seconds after so many lines of its journal, or when the next one comes."""

    lines: int
    seconds: float


class Watched:
    """A ``penjing`` at work in a folder, seen from outside by its journal."""

    def __init__(self, place: Path, words: Sequence[str]) -> None:
        self.place, self.begun = place, time.monotonic()
        self.journal = place / "unfinished" / JOURNAL
        self.process = subprocess.Popen(
            [sys.executable, "-m", "penjing.cli", *words],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def facts(self) -> tuple[list[dict[str, Any]], int]:
        """Return what the journal tells, and how many processes began."""
        try:
            whole, _, _ = self.journal.read_bytes().rpartition(b"\n")
        except OSError:
            return [], 0
        facts = [json.loads(line) for line in whole.splitlines()]
        told = [fact for fact in facts if fact["event"] != BEGUN]
        return told, len(facts) - len(told)

    def until_line(self, lines: int, processes: int = 1) -> float | None:
        """Wait until there are so many lines, by so many processes, and return when, in seconds since the start.

        None once it has ended.
        """
        while True:
            told, begun = self.facts()
            if len(told) >= lines and begun >= processes:
                return time.monotonic() - self.begun
            if self.process.poll() is not None:
                return None
            time.sleep(0.01)

    def end(self) -> None:
        """Wait for the end.

        Raises: ResumeError when it does not end well.
        """
        _, said = self.process.communicate()
        if self.process.returncode:
            raise ResumeError(f"penjing ended with {self.process.returncode}: {said.decode().strip()[-300:]}")

    def kill(self) -> dict[str, Any]:
        """Kill it and tell what it had come to."""
        self.process.kill()
        self.process.communicate()
        facts, _ = self.facts()
        last = facts[-1] if facts else {}
        trials = sum(": trial " in str(fact.get("name")) for fact in facts)
        text = self.journal.read_bytes() if self.journal.exists() else b""
        training = [path.name for path in self.journal.parent.glob("*.training")]
        told = {"lines": len(facts), "trials": trials, "after": last.get("name", last.get("step", "")), "in": training}
        return told | {"torn": bool(text) and not text.endswith(b"\n")}


def undisturbed(recipe: Path, place: Path) -> tuple[list[float], float]:
    """Run once; return when each line of the journal came, and how long all took."""
    watched = Watched(place, _words(recipe, place))
    times: list[float] = []
    while (seen := watched.until_line(len(times) + 1)) is not None:
        times.append(seen)
    watched.end()
    return times, time.monotonic() - watched.begun


def moments(times: Sequence[float], trials: Sequence[float], seed: int) -> list[Moment]:
    """Draw a moment from each tenth of a run's progress, until the last of its lines.

    Progress is time, and where there are ``trials``, which came at these times, it is half time and half trials.
    """
    rng, found = random.Random(seed), []
    grid = np.linspace(0, times[-1], 10_001)[:-1]
    progress = grid / times[-1]
    if trials:
        progress = (progress + np.searchsorted(trials, grid, side="right") / len(trials)) / 2
    for part in range(KILLS):
        at = float(grid[min(np.searchsorted(progress, (part + rng.random()) / KILLS), len(grid) - 1)])
        lines = sum(seen <= at for seen in times)
        found.append(Moment(lines, at - (times[lines - 1] if lines else 0.0)))
    return found


def killed(recipe: Path, place: Path, at: Sequence[Moment]) -> list[dict[str, Any]]:
    """Run, be killed at each of these moments in turn, go on each time, and end; tell what each kill interrupted."""
    told = []
    for moment in at:
        watched = Watched(place, _onwards(recipe, place))
        _, before = watched.facts()
        watched.until_line(moment.lines, before + 1 if moment.lines else 0)
        until = time.monotonic() + moment.seconds
        while time.monotonic() < until and watched.process.poll() is None and len(watched.facts()[0]) <= moment.lines:
            time.sleep(0.01)
        if watched.process.poll() is not None:
            watched.end()  # it was faster this time: nothing is left to kill
            break
        told.append(watched.kill())
    if not (place / RESULTS).exists():
        Watched(place, _onwards(recipe, place)).end()
    return told


def _of_trials(place: Path, times: Sequence[float]) -> list[float]:
    """Return at which of these times a trial was written down."""
    facts = [json.loads(line) for line in (place / JOURNAL).read_bytes().splitlines()]
    facts = [fact for fact in facts if fact["event"] != BEGUN]
    return [seen for fact, seen in zip(facts, times, strict=False) if ": trial " in str(fact.get("name"))]


def _words(recipe: Path, place: Path, *more: str) -> list[str]:
    return ["run", str(recipe), "--out", str(place), "--quiet", *more]


def _onwards(recipe: Path, place: Path) -> list[str]:
    """Return how a run goes on, or begins where none was killed before it could."""
    begun = (place / "unfinished" / "run.json").exists()
    return ["resume", str(place), "--quiet"] if begun else _words(recipe, place)


def differences(ours: Path, theirs: Path) -> list[str]:
    """Name what differs between two runs."""
    files = {"file": "model.onnx", "weights": f"{BUNDLE}/{WEIGHTS}"}
    found = [what for what, name in files.items() if (ours / name).read_bytes() != (theirs / name).read_bytes()]
    plans = [json.loads((place / BUNDLE / MANIFEST).read_bytes())["lineage"] for place in (ours, theirs)]
    told = [json.loads((place / RESULTS).read_bytes()) for place in (ours, theirs)]
    found += ["plan"] * (plans[0] != plans[1])
    return found + [key for key in ("sites", "trials", "validation", "remarks") if told[0][key] != told[1][key]]


def row(name: str, again: bool) -> dict[str, Any]:
    """Kill one method at ten moments: ten runs once each, or one run ``again`` and again.

    ``same`` counts the kills whose run ended as the undisturbed one did.
    """
    with tempfile.TemporaryDirectory() as scratch:
        recipe = written(name, Path(scratch))
        whole = Path(scratch) / "whole"
        times, lasted = undisturbed(recipe, whole)
        at = moments(times, _of_trials(whole, times), SEED)
        kills: list[dict[str, Any]] = []
        for number, some in enumerate([at] if again else [[moment] for moment in at]):
            place = Path(scratch) / f"killed{number}"
            told = killed(recipe, place, some)
            kills += [one | {"differs": differences(place, whole)} for one in told]
        trials = len(json.loads((whole / RESULTS).read_bytes())["trials"])
    found = {"steps": STEPS[name], "seconds": round(lasted, 1), "lines": len(times), "trials": trials}
    return found | {"killed": len(kills), "same": sum(not kill["differs"] for kill in kills), "kills": kills}


def workers(name: str) -> dict[str, Any]:
    """Run one search by this process, two processes and two Ray actors; tell whether all come to the same."""
    with tempfile.TemporaryDirectory() as scratch:
        recipe = written(name, Path(scratch))
        alone, _, _ = places = [Path(scratch) / who for who in ("0", "2", "ray")]
        for place, who in zip(places, ("0", "2", "ray:2"), strict=True):
            Watched(place, _words(recipe, place, "--workers", who)).end()
        values = [found_values(place) for place in places]
        differ = {place.name: differences(place, alone) for place in places[1:]}
    same = sum(v == values[0] and not d for v, d in zip(values[1:], differ.values(), strict=True))
    return {"steps": STEPS[name], "trials": len(values[0]), "compared": 2, "same": same, "differ": differ}


def found_values(place: Path) -> dict[str, Any]:
    """Return what the journal has of each trial."""
    facts = [json.loads(line) for line in (place / JOURNAL).read_bytes().splitlines()]
    return {f["name"]: f["value"] for f in facts if f["event"] == "found" and ": trial " in f["name"]}


def written(name: str, folder: Path) -> Path:
    """Write the recipe of a method."""
    recipe = {"model": "penjing.zoo.digits:trained", "data": "digits", "budget": {"macs": "0.4x"}}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**recipe, "steps": [*STEPS[name], "export"]}))
    return path


def rows() -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Name the rows, quick ones first."""
    for name in STEPS:
        yield f"{name}_again", partial(row, name, again=True)
    for name in ("ddpg", "abcpruner", "metapruning", "n2n"):
        yield f"workers_{name}", partial(workers, name)
    for name in ("ddpg", "abcpruner"):
        yield name, partial(row, name, again=False)


def main() -> None:
    """Fill the rows."""
    where = arguments(__doc__, "benchmarks/results/kills").parse_args()
    fill(where.out, rows(), where.only)


if __name__ == "__main__":
    main()
