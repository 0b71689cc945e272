"""Feed the command line with what is nearly right, damaged or hostile, and see that it never surprises.

Each case runs in a folder of its own and must end within a minute as done, missed or refused in one sentence: no
traceback, no error of penjing's own, no call out, nothing unpickled, nothing written elsewhere.

    python benchmarks/fuzz.py --minutes 60 --seed 0 --out results/fuzz.json
    python benchmarks/fuzz.py --again results/fuzz.json      # the cases that it found, once more

The file counts the cases by part and by how they ended, and holds every case that is wrong, whole.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis.strategies import SearchStrategy

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parent))

from fuzzing import bundles, folders, recipes, runs, stage, targets
from fuzzing.guard import LIMIT, Arena, Ending, arena, judged

BATCH = 40
"""Cases of one draw of the generator."""


@dataclass(frozen=True)
class Part:
    """One kind of input: how its cases are drawn, and how one becomes files and a command."""

    cases: Callable[[], SearchStrategy[dict[str, Any]]]
    prepare: Callable[[dict[str, Any], Arena], list[str]]
    goes_on: bool = False
    skips: Callable[[dict[str, Any]], bool] = lambda case: False


PARTS = {
    "recipes": Part(recipes.cases, recipes.prepare, skips=recipes.too_long),
    "budgets": Part(recipes.budgets, recipes.prepare_budget),
    "bundles": Part(bundles.cases, bundles.prepare),
    "folders": Part(folders.cases, folders.prepare),
    "targets": Part(targets.cases, targets.prepare),
    "runs": Part(runs.cases, runs.prepare, goes_on=True),
}


def played(name: str, case: dict[str, Any], limit: float = LIMIT) -> Ending:
    """Run one case and judge how it ended."""
    part = PARTS[name]
    with arena() as place:
        return judged(part.prepare(case, place), place, limit=limit, goes_on=part.goes_on)


def batch(name: str, seed: int, count: int, met: Callable[[dict[str, Any]], None]) -> None:
    """Draw so many cases of a part and hand them on; the same seed draws the same ones."""
    part = PARTS[name]

    @hypothesis.seed(seed)
    @settings(max_examples=count, deadline=None, database=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @hypothesis.given(part.cases())
    def each(case: dict[str, Any]) -> None:
        if not part.skips(case):
            met(case)

    each()


def fuzz(names: list[str], minutes: float, seed: int, out: Path) -> dict[str, Any]:
    """Take the parts in turns, giving each the same time, until the minutes are over."""
    end, spent = time.monotonic() + 60 * minutes, dict.fromkeys(names, 0.0)
    report: dict[str, Any] = {"seed": seed, "minutes": minutes, "cases": {n: Counter() for n in names}, "found": []}
    turn = dict.fromkeys(names, 0)
    while time.monotonic() < end:
        name = min(names, key=lambda n: spent[n])
        began, number = time.monotonic(), seed * 1_000_000 + turn[name]
        turn[name] += 1

        def met(case: dict[str, Any], name: str = name, number: int = number) -> None:
            if time.monotonic() > end:
                return
            out.with_suffix(".now").write_text(json.dumps({"part": name, "seed": number, "case": case}))
            ending = played(name, case)
            report["cases"][name][ending.how] += 1
            if ending.wrong:
                report["cases"][name]["wrong"] += 1
                report["found"].append({"part": name, "seed": number, **asdict(ending), "case": case})
                print(f"{name} {number}: {'; '.join(ending.wrong)} | {ending.said.strip()[:300]}", flush=True)

        batch(name, number, BATCH, met)
        spent[name] += time.monotonic() - began
        _write(out, report)
    return report


def _write(out: Path, report: dict[str, Any]) -> None:
    beside = out.with_suffix(".part")
    beside.write_text(json.dumps(report, indent=1))
    beside.replace(out)


def again(file: Path) -> int:
    """Run the cases that a report found; return how many of them are still wrong."""
    wrong = 0
    for found in json.loads(file.read_text())["found"]:
        ending = played(found["part"], found["case"])
        wrong += bool(ending.wrong)
        judgement = "; ".join(ending.wrong) or "right"
        print(f"{found['part']} {found['seed']}: {ending.how}; {judgement} | {ending.said.strip()[:300]}")
    return wrong


def main() -> int:
    """Fuzz for a while, or run found cases again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/fuzz.json"))
    parser.add_argument("--part", action="append", choices=PARTS, help="this part alone; may be given again")
    parser.add_argument("--again", type=Path, help="run the cases that this report found")
    given = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("always")
    with stage.quickly():
        stage.make(runs.STOPS)
        if given.again:
            return 1 if again(given.again) else 0
        given.out.parent.mkdir(parents=True, exist_ok=True)
        report = fuzz(given.part or list(PARTS), given.minutes, given.seed, given.out)
    for name, counts in report["cases"].items():
        print(f"{name:8} {sum(counts.values()) - counts['wrong']:6} cases: {dict(counts)}")
    return 1 if report["found"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
