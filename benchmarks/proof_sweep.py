"""The proof sweep in full: every hostile network and hundreds of random ones, cut in half and to the bone.

Of each cut: does it equal the zeroed original, keep other batch sizes, train, save and load, and (with ``--onnx``) run
the same as a file? And of each network: how large a share of its units is free, and why the rest is not. Rows are
written as they are done; a run that stops goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from penjing.core.errors import PenjingError
from penjing.core.files import write_whole
from penjing.graph.proof import prove
from rows import machine

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from graph.checks import Network, half, hostile, random_network, single, troubles
from nets.file_gap import gap_of_file
from nets.hostile import HOSTILE

PARITY = 1e-4
"""Largest relative difference between a network and its file."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--random", type=int, default=300, metavar="N", help="how many random networks (default 300)")
    parser.add_argument("--onnx", action="store_true", help="also export every cut network and compare (seconds each)")
    parser.add_argument("--only", default="", metavar="TEXT", help="networks whose name contains this")
    parser.add_argument("--out", type=Path, default=Path("proof_sweep.json"), metavar="FILE")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    table = load(options.out)
    makers: dict[str, Callable[[], Network]] = {f"hostile/{n}": lambda n=n: hostile(n) for n in HOSTILE}  # type: ignore[misc]
    makers |= {f"random/{seed}": lambda seed=seed: random_network(seed) for seed in range(options.random)}  # type: ignore[misc]
    makers = {name: make for name, make in makers.items() if options.only in name}
    for name, make in makers.items():
        done = table["rows"].get(name, {})
        if not done or (options.onnx and "onnx" not in done):
            table["rows"][name] = row(name, make, options.onnx)
            write_whole(options.out, json.dumps(table, indent=1).encode())
        print(line(name, table["rows"][name]), flush=True)
    print(summary([table["rows"][name] for name in makers]))


def load(path: Path) -> dict[str, Any]:
    """Return the table written before, or an empty one."""
    if path.exists():
        table: dict[str, Any] = json.loads(path.read_text())
        return table
    return {"machine": machine(), "date": time.strftime("%Y-%m-%d"), "rows": {}}


def row(name: str, make: Callable[[], Network], onnx: bool) -> dict[str, Any]:
    """Ask everything of one network."""
    start = time.perf_counter()
    kind, _, rest = name.partition("/")
    seed = int(rest) if kind == "random" else 1
    case = HOSTILE.get(rest)
    try:
        net = make()
    except PenjingError as error:
        return {"troubles": [str(error)], "free": 0, "total": 0, "named": bool(case and case.named), "pinned": []}
    graph = net.graph
    found = []
    worst = 0.0
    for how in (half, single):
        kept = how(graph, seed)
        found += [f"{how.__name__}: {trouble}" for trouble in troubles(net, kept)]
        worst = max(worst, prove(graph, net.model, net.small(kept), kept).difference)
    facts = {
        "named": bool(case and case.named),
        "free": graph.free,
        "total": graph.total,
        "sites": len(graph.sites),
        "pinned": [vars(note) for note in graph.notes],
        "difference": worst,
        "troubles": found,
    }
    if onnx:
        facts["onnx"] = file_gap(net, seed)
        if isinstance(facts["onnx"], float) and not facts["onnx"] <= PARITY:
            found.append(f"the file differs by {facts['onnx']:.1e}")
    return {**facts, "seconds": round(time.perf_counter() - start, 2)}


def file_gap(net: Network, seed: int) -> float | str:
    """Return how far the file of the cut network is from it, or why there is no file even of the whole one."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        try:
            return gap_of_file(net.small(half(net.graph, seed)), net.args, net.kwargs, path)
        except PenjingError as error:
            try:
                gap_of_file(net.model, net.args, net.kwargs, path)
            except PenjingError:
                return f"not even the whole network has a file: {error}"
            return float("inf")


def line(name: str, facts: dict[str, Any]) -> str:
    """Return one line of the table, with the reasons for what is not free."""
    share = facts["free"] / facts["total"] if facts["total"] else 0.0
    text = f"{name:45} {'named' if facts['named'] else '     '} {share:6.1%} free, {facts.get('sites', 0):3} sites"
    if "difference" in facts:
        text += f", differs by {facts['difference']:.0e}"
    if "onnx" in facts:
        text += f", file {facts['onnx']:.0e}" if isinstance(facts["onnx"], float) else f", {facts['onnx']}"
    for note in facts["pinned"]:
        mark = "constant in the code: " if note["fixed_by_code"] else ""
        text += f"\n{'':51} {note['units']:4} of {note['where']} stay: {mark}{note['why']} {note['line']}".rstrip()
    for trouble in facts["troubles"]:
        text += f"\n{'':51} TROUBLE {trouble}"
    return text


def summary(rows: list[dict[str, Any]]) -> str:
    """Return what the whole sweep says."""
    failed = [facts for facts in rows if facts["troubles"]]
    shares = [facts["free"] / facts["total"] for facts in rows if facts["total"]]
    excused = []
    for facts in rows:
        fixed = sum(note["units"] for note in facts["pinned"] if note["fixed_by_code"])
        if facts["total"]:
            excused.append((facts["named"], (facts["free"] + fixed) / facts["total"]))
    named = [share for is_named, share in excused if is_named]
    files = [facts["onnx"] for facts in rows if isinstance(facts.get("onnx"), float)]
    unwritten = [facts for facts in rows if isinstance(facts.get("onnx"), str)]
    lines = [
        f"{len(rows)} networks, {len(failed)} with trouble",
        f"cut equals zeroed within {max((f['difference'] for f in rows if 'difference' in f), default=0):.1e}",
        f"free: median {statistics.median(shares):.1%}, mean {statistics.mean(shares):.1%}, least {min(shares):.1%}",
        f"named structures: {len(named)}, least free or fixed by the user's code {min(named, default=1):.1%}",
    ]
    if files or unwritten:
        worst = max(files, default=0)
        lines.append(
            f"files: {len(files)} compared, worst {worst:.1e}; {len(unwritten)} networks have no file even whole"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
