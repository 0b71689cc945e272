"""How long it takes to find out what may be cut, and to cut half of it; beside Torch-Pruning where that is installed.

Both remove half of the channels of every group by the size of the weights (l1), from the same network, in turns within
one run on one thread. Times are medians, in seconds of the processor, which others on the machine do not lengthen. Peak
memory is that of a process of its own, above what it held before. Rows (one a network) are written as they are done; a
run that stops goes on where it stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from networks import densenet121
from penjing.core.files import write_whole
from penjing.core.units import Kept
from penjing.graph.evidence import Evidence
from penjing.graph.proof import prove
from penjing.graph.surgery import cut
from penjing.graph.trace import trace
from penjing.zoo import resnet50, resnet56
from rows import machine

RATIO = 0.5

NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "resnet50": (resnet50, (2, 3, 224, 224)),
    "resnet56": (resnet56, (2, 3, 32, 32)),
    "resnet56_projected": (lambda: resnet56(shortcut="B"), (2, 3, 32, 32)),
    "densenet121": (densenet121, (2, 3, 224, 224)),
}
"""Torch-Pruning cannot cut the padded shortcuts of resnet56, so it is measured with projections as well."""

Steps = dict[str, float]


def ours(model: nn.Module, x: Tensor, proof: bool) -> Steps:
    """Trace, plan and cut in place; with ``proof``, also prove the plan."""
    original = copy.deepcopy(model) if proof else model
    clock = [time.process_time()]
    graph = trace(model, (x,), proof=proof)
    clock.append(time.process_time())
    evidence = Evidence(model, graph)
    kept: dict[str, Kept] = {}
    for site in graph.sites:
        scores = evidence.filters(site).abs().sum(1).numpy()
        kept[site.name] = np.sort(np.argsort(-scores, kind="stable")[: round(site.size * (1 - RATIO))])
    clock.append(time.process_time())
    cut(model, graph, kept)
    clock.append(time.process_time())
    if proof and not prove(graph, original, model, kept).ok:
        raise RuntimeError("the cut fails its proof")
    clock.append(time.process_time())
    names = ("trace", "plan", "cut", "prove")
    steps = {name: b - a for name, (a, b) in zip(names, pairwise(clock), strict=True)}
    return steps if proof else {name: steps[name] for name in names[:3]}


def theirs(model: nn.Module, x: Tensor) -> Steps:
    """Build Torch-Pruning's graph and prune in place."""
    import torch_pruning

    start = time.process_time()
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    pruner = torch_pruning.pruner.MagnitudePruner(
        model,
        x,
        importance=torch_pruning.importance.MagnitudeImportance(p=1),
        pruning_ratio=RATIO,
        ignored_layers=[last],
    )
    built = time.process_time()
    pruner.step()
    return {"trace": built - start, "plan and cut": time.process_time() - built}


TOOLS: dict[str, Callable[[nn.Module, Tensor], Steps]] = {
    "penjing": lambda model, x: ours(model, x, proof=True),
    "penjing without proof": lambda model, x: ours(model, x, proof=False),
    "torch-pruning": theirs,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="turns of every tool (default 5)")
    parser.add_argument("--only", default="", metavar="TEXT", help="networks whose name contains this")
    parser.add_argument("--out", type=Path, default=Path("trace_speed.json"), metavar="FILE")
    parser.add_argument("--memory", nargs=2, metavar=("NETWORK", "TOOL"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if options.memory:
        print(json.dumps(memory(*options.memory)))
        return
    table = json.loads(options.out.read_text()) if options.out.exists() else {"machine": machine(), "rows": {}}
    for name in NETWORKS:
        if options.only in name and name not in table["rows"]:
            table["rows"][name] = row(name, options.repeats)
            write_whole(options.out, json.dumps(table, indent=1).encode())
        for tool, facts in table["rows"].get(name, {}).items():
            print(f"{name:20} {tool:24} {json.dumps(facts)}", flush=True)


def build(name: str) -> tuple[nn.Module, Tensor]:
    maker, shape = NETWORKS[name]
    return maker().eval(), torch.randn(shape, generator=torch.Generator().manual_seed(0))


def installed() -> list[str]:
    """Return the tools that are there."""
    try:
        import torch_pruning  # noqa: F401
    except ImportError:
        return [tool for tool in TOOLS if tool != "torch-pruning"]
    return list(TOOLS)


def row(name: str, repeats: int) -> dict[str, Any]:
    """Let the tools take turns on copies of one network; one turn of each beforehand does not count."""
    model, x = build(name)
    runs: dict[str, list[Steps]] = {tool: [] for tool in installed()}
    facts: dict[str, Any] = {tool: {} for tool in runs}
    for turn in range(repeats + 1):
        for tool, found in runs.items():
            if "fails" in facts[tool]:
                continue
            small = copy.deepcopy(model)
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    steps = TOOLS[tool](small, x)
                with torch.no_grad():
                    small(x)
            except Exception as error:
                facts[tool]["fails"] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
                continue
            facts[tool]["parameters"] = sum(p.numel() for p in small.parameters())
            if turn:
                found.append(steps)
    for tool, found in runs.items():
        if found and "fails" not in facts[tool]:
            facts[tool]["seconds"] = round(statistics.median(sum(steps.values()) for steps in found), 3)
            facts[tool]["steps"] = {k: round(statistics.median(s[k] for s in found), 3) for k in found[0]}
            command = [sys.executable, __file__, "--memory", name, tool]
            told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            facts[tool]["peak_mb"] = json.loads(told.splitlines()[-1])
    return facts


def memory(name: str, tool: str) -> float:
    """Return how far the resident memory of this process rises above what it held before, in MB."""
    model, x = build(name)
    if tool == "torch-pruning":
        import torch_pruning  # noqa: F401
    with torch.no_grad():
        model(x)
    Path("/proc/self/clear_refs").write_text("5")  # Linux forgets the peak so far
    before = resident("VmRSS")
    with contextlib.redirect_stdout(io.StringIO()):
        TOOLS[tool](model, x)
    return round((resident("VmHWM") - before) / 1024, 1)


def resident(key: str) -> int:
    """Return one of Linux's memory counts of this process, in KB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


if __name__ == "__main__":
    main()
