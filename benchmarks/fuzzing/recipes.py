"""Recipes that are nearly right, changed as data and as text; and budgets as text."""

from __future__ import annotations

import json
from typing import Any

import yaml
from hypothesis import strategies as st

from fuzzing import stage
from fuzzing.guard import Arena
from fuzzing.mutate import WORDS, Draw, damaged, mutated

MOST = 200
"""Epochs, rounds and threads beyond which a recipe asks for long work rather than for a refusal."""

RECIPES: tuple[dict[str, Any], ...] = (
    {
        "model": "tiny:tiny", "data": "DATA", "budget": {"macs": "0.6x"},
        "steps": [{"prune": {"criterion": "l1"}}, {"train": {"epochs": 1, "lr": 0.02, "batch": 16}}, "export", "check"],
    },
    {
        "model": "tiny:tiny", "data": "DATA", "budget": "params=0.7x,size=0.9x", "seed": 3, "val": 0.2,
        "target": {"threads": 1, "batch": 2}, "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2], "penjing": 1,
        "steps": ["prune", {"reconstruct": {"images": 16, "ridge": 0.01}}, "recalibrate",
                  {"export": {"file": "a.onnx"}}],
    },
    {
        "model": "tiny:tiny", "data": "DATA", "budget": {"error": "+30"},
        "steps": [{"prune": {"criterion": "lamp", "allocator": "uniform", "include": ["conv1"], "step": 1}},
                  "evaluate"],
    },
    {
        "model": "tiny:tiny", "data": "DATA", "budget": {"nonzero": "0.3x"},
        "steps": [{"prune": {"rewrite": "weights", "criterion": "l1", "allocator": "global"}},
                  {"train": {"epochs": 1, "terms": ["soft_targets"], "optimizer": "adamw"}}],
    },
    {
        "model": "tiny:tiny", "data": "DATA", "budget": {"macs": "0.8x"},
        "steps": [{"factorize": {"rewrite": "svd_spatial", "ranks": "full", "include": ["conv*"]}},
                  {"prune": {"criterion": "l2", "include": ["rank:*"], "step": 1}}, {"merge": {"every": False}}],
    },
    {
        "model": "tiny:tiny", "data": "DATA", "budget": {"macs": "0.6x"},
        "steps": [{"factorize": {"rewrite": {"lowrank_basis": {"vertical": 0.25}}, "ranks": {"share": 0.5},
                                 "exclude": ["stem"]}},
                  {"factorize": {"rewrite": "tucker2", "allocator": "uniform", "step": 2}}, "recalibrate"],
    },
)  # fmt: skip

COSTS = ("macs", "params", "memory", "nonzero", "size", "latency", "error", "flops", "Macs", "mac", "")
NUMBERS = ("1_000", "0x10", "1e5", ".5", "5.", "-0", "+0.5", "+-1", "١", "½", "9" * 400, "1,5", "")
ENDS = ("x", "%", "", "ms", "us", "k", "M", "MB", "KiB", "X", "×", "bytes", "G", "s", "kg", "‰")


@st.composite
def cases(draw: Draw) -> dict[str, Any]:
    """Draw a recipe as text."""
    data: Any = draw(st.sampled_from(RECIPES))
    for _ in range(draw(st.integers(0, 3))):
        data = mutated(draw, data)
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=draw(st.booleans()))
    raw = text.encode(errors="replace")
    for _ in range(draw(st.sampled_from([0, 0, 1, 3]))):
        raw = damaged(draw, raw)
    changes = []
    for _ in range(draw(st.sampled_from([0, 0, 0, 1]))):
        key = draw(st.sampled_from(["seed", "steps.0", "steps.0.prune.step", "budget.macs", "val", "steps", *WORDS]))
        changes.append(f"{key.replace(chr(0), '')}={draw(st.sampled_from(WORDS)).replace(chr(0), '')}")
    return {"recipe": raw.decode("latin-1"), "set": changes}


def prepare(case: dict[str, Any], arena: Arena) -> list[str]:
    """Write the recipe and return the command."""
    raw = case["recipe"].encode("latin-1").replace(b"DATA", str(stage.pictures()).encode())
    (arena.given / "r.yaml").write_bytes(raw)
    sets = [word for change in case["set"] for word in ("--set", change)]
    return ["run", "r.yaml", *sets, "--out", str(arena.out), "--quiet"]


def too_long(case: dict[str, Any]) -> bool:
    """Tell whether a recipe asks, rightly, for more work than there is time for."""
    try:
        data = yaml.safe_load(case["recipe"].encode("latin-1"))
    except (yaml.YAMLError, ValueError, RecursionError):
        return False
    return _asks(data)


def _asks(data: Any, key: Any = "") -> bool:
    if isinstance(data, dict):
        return any(_asks(value, name) for name, value in data.items())
    if isinstance(data, list):
        return any(_asks(value, key) for value in data)
    if isinstance(data, str) and data.replace("_", "").isdigit():
        data = int(data.replace("_", ""))
    return key in ("epochs", "rounds", "images") and isinstance(data, int | float) and data > MOST


@st.composite
def budgets(draw: Draw) -> dict[str, Any]:
    """Draw a budget as text."""
    parts = []
    for _ in range(draw(st.sampled_from([1, 1, 2, 3]))):
        if draw(st.booleans()):
            parts.append(draw(st.sampled_from(COSTS[:6])) + draw(st.sampled_from(["=0.3x", "=0.7x", "=90%", "=0.05x"])))
            continue
        number = draw(
            st.one_of(
                st.floats(-1, 3).map(str), st.integers(-10, 10**20).map(str), st.floats().map(repr),
                st.sampled_from(NUMBERS),
            )
        )  # fmt: skip
        equals = draw(st.sampled_from(["=", "=", "=", "=", ":", "", "==", " = "]))
        parts.append(draw(st.sampled_from(COSTS)) + equals + number + draw(st.sampled_from(ENDS)))
    text = draw(st.sampled_from([",", ", ", ";", ",,"])).join(parts)
    if draw(st.integers(0, 9)) == 0:
        text = draw(st.text(max_size=30))
    return {"budget": text.replace("\0", "").encode(errors="replace").decode()}


def prepare_budget(case: dict[str, Any], arena: Arena) -> list[str]:
    """Return the command."""
    return ["compress", "tiny:tiny", str(stage.pictures()), f"--budget={case['budget']}", "--criterion", "l1",
            "--epochs", "0", "--quiet", "--out", str(arena.out)]  # fmt: skip


def shown(case: dict[str, Any]) -> str:
    """Return a case as one line."""
    return json.dumps(case)
