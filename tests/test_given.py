"""What cannot work is refused before any work, in one sentence that names it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import penjing
from penjing.core.errors import BudgetError, PenjingError
from penjing.graph.quantized import Precision, attach
from penjing.quantizers.lsq import lsq
from penjing.steps.order import ordered
from penjing.sweep import shares_of
from tiny import pictures, tiny


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"seed": 1.5}, "The seed is a whole number from 0 on; got 1.5."),
        ({"seed": "a"}, "The seed is a whole number from 0 on; got 'a'."),
        ({"seed": True}, "The seed is a whole number from 0 on; got True."),
        ({"references": "random"}, "References are several names, such as ('random',); got 'random' alone."),
    ],
)
def test_options_that_are_of_another_kind(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(PenjingError, match=re.escape(says)):
        penjing.run(tiny(), pictures(tmp_path), ["prune"], "macs=0.5x", **options)


@pytest.mark.parametrize("step", ["gal", "ssl", "rbp", {"gmp": {"sparsity": 0.5}}, "lccl", "obc", "reconstruct"])
def test_a_network_in_few_bits_is_left_alone_by_what_changes_it(tmp_path: Path, step: Any) -> None:
    model = tiny()
    attach(model, {"conv1": Precision(lsq(), 4)})
    with pytest.raises(PenjingError, match="conv1 is quantized already, and bits come last"):
        penjing.run(model, pictures(tmp_path), [step, "export"], "macs=0.8x")


@pytest.mark.parametrize(
    "step",
    [
        {"obc": {"criterion": "nonsense"}},
        {"metapruning": {"allocator": "nonsense"}},
        {"quantize": {"allocator": "nonsense"}},
        {"quantize": {"measure": "nonsense"}},
    ],
)
def test_every_name_is_looked_up(step: Any) -> None:
    with pytest.raises(PenjingError, match=r"There is no .* 'nonsense'"):
        ordered([step])


def test_a_frontier_of_no_cost() -> None:
    with pytest.raises(BudgetError, match="latency"):
        shares_of("latencyy", (0.5,))
