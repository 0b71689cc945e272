"""Steps combine: a bundle gives back what two of them make, to the bit, and a file is written of it, in int8 too."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import penjing
from penjing.core.errors import PlanError
from penjing.data import load
from penjing.data.data import Data
from penjing.exporting import bundle
from penjing.steps.order import ordered
from penjing.steps.state import Run, State
from tiny import pictures, skilled

SHORT = {"epochs": 1, "batch": 16}

SHAPING: Mapping[str, Any] = {
    "channels": {"prune": {"budget": "macs=0.7x"}},
    "kernels": {"prune": {"rewrite": "kernels", "criterion": "l2", "normalise": False, "budget": "macs=0.7x"}},
    "weights": {"prune": {"rewrite": "weights", "budget": "nonzero=0.5x"}},
    "obc": {"obc": {"budget": "nonzero=0.5x"}},
    "gmp": {"gmp": {**SHORT, "sparsity": 0.5}},
    "svd": {"factorize": {"ranks": {"energy": 0.9}}},
    "full": {"factorize": {"ranks": "full"}},
    "svd_spatial": {"factorize": {"rewrite": "svd_spatial", "ranks": {"energy": 0.9}}},
    "cp": {"factorize": {"rewrite": "cp", "ranks": {"ratio": 2}}},
    "tucker2": {"factorize": {"rewrite": "tucker2", "ranks": {"energy": 0.8}}},
    "btd": {"factorize": {"rewrite": "btd", "ranks": {"ratio": 2}}},
    "bicluster": {"factorize": {"rewrite": "bicluster", "ranks": {"ratio": 2}}},
    "basis": {"factorize": {"rewrite": "lowrank_basis", "ranks": {"share": 0.5}}},
    "lighten": {"lighten": {"budget": "macs=0.6x"}},
    "gal": {"gal": SHORT},
    "ssl": {"ssl": SHORT},
    "rbp": {"rbp": SHORT},
    "lccl": {"lccl": SHORT},
    "merge": "merge",
    "remove_dead": "remove_dead",
}
"""Steps that change what a network is made of."""

ROUNDING: Mapping[str, Any] = {
    name: {"quantize": {"method": name}}
    for name in ("lsq", "fixed", "twn", "xnor", "irnet", "codebook", "product", "hashed")
}
"""Steps that come last."""

NOTHING = re.compile("Nothing may be factorised by|lccl: no layer that include and exclude leave")
"""What a step says where the one before it left no layer of the shape that it takes."""

QUICK = {"kernels", "svd", "basis", "lighten", "lccl"}, {"channels", "lccl", "merge", "lsq", "xnor", "product"}
"""Pairs of these are tried each time, all others when slow tests are."""


def pairs() -> list[Any]:
    names = [(a, b) for a in SHAPING for b in (*SHAPING, *ROUNDING) if a != b]
    quick = {(a, b) for a in QUICK[0] for b in QUICK[1]}
    return [pytest.param(*pair, marks=() if pair in quick else pytest.mark.slow) for pair in names]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return load(pictures(tmp_path_factory.mktemp("pictures")), seed=0)


@pytest.mark.parametrize(("first", "then"), pairs())
def test_a_bundle_gives_back_what_two_steps_have_made(first: str, then: str, data: Data, tmp_path: Path) -> None:
    steps = ordered([(SHAPING | ROUNDING)[first], (SHAPING | ROUNDING)[then], {"train": {**SHORT, "lr": 0.005}}])
    original = skilled().eval()
    state = State(copy.deepcopy(original), original, data, ((data.example(2),), {}))
    budget = {"macs": "0.8x"} if {first, then} & {"gal", "ssl", "rbp", "lccl"} else {}
    run = Run(tmp_path, budget)
    try:
        for step in steps:
            state = step(state, run)
    except PlanError as refused:
        assert NOTHING.match(str(refused)), refused
        pytest.skip(str(refused))
    run.close()
    x, small = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0)), state.model.eval()
    place = bundle.write(tmp_path / "kept", small, plans=state.plans)
    done = bundle.write(tmp_path / "done", small, plans=state.plans, finished=True)
    with torch.no_grad():
        assert torch.equal(bundle.load(place, skilled)(x), small(x))
        assert torch.equal(bundle.load(done, skilled, packed=False)(x), small(x))
        if then not in (
            "xnor",
            "irnet",
        ):  # sums of signs are 0 often, and which sign a 0 has is no matter of a tolerance
            torch.testing.assert_close(bundle.load(done, skilled)(x), small(x), rtol=1e-4, atol=1e-4)
    assert len(bundle.plans_of(done)) == len(state.plans)


@pytest.mark.parametrize("first", SHAPING)
def test_what_a_step_has_made_is_exported_in_floats_and_in_whole_numbers(first: str, data: Data) -> None:
    steps = [SHAPING[first], {"train": {**SHORT, "lr": 0.005}}, {"quantize": {"method": "int8"}}, "export", "check"]
    budget = {"macs": "0.8x"} if first in {"gal", "ssl", "rbp"} else None
    done = penjing.run(skilled(), data, steps, budget, seed=0, threads=1)
    proofs = {proof["name"]: proof["ok"] for proof in done.results["certificates"]}
    assert {"torch equals ONNX", "torch resembles int8"} <= set(proofs) and all(proofs.values()), proofs
