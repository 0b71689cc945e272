from argparse import Namespace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from .loading import loaded


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return loaded("families")


def made(family: str, validation: float, reached: float, target: str = "onnxruntime", **more: Any) -> dict[str, Any]:
    cost = "latency" if target == "onnxruntime" else "energy"
    return {"family": family, "target": target, "cost": cost, "share": 1.0, "seed": 0, "reference": 0.5, "limit": 0.525,
            "model": f"{family}(num_classes=10, width=0.5)", "params": 270_000.0, "macs": 40.6e6, "size": 1_089_000,
            "times as long": {"median": reached}, "hardware": {"edge_tpu_like": {"energy": 0.5 * reached}},
            "validation": validation, "accuracy": validation - 1, "length": "short",
            "training": {"epochs": 3, "train pictures": 1000}, **more}  # fmt: skip


def test_every_family_has_a_row_for_each_budget(benchmark: ModuleType) -> None:
    names = [name for name, _ in benchmark.rows(Namespace(out=Path(), seeds=[0], epochs=30, pictures=None))]
    assert len(names) == len(set(names)) == 2 * 3 * len(benchmark.FAMILIES)
    assert "edge_tpu_like_energy2.5x_densenet_cifar_30epochs_seed0" in names


def test_a_table_tells_the_best_first_and_who_costs_too_much_last(benchmark: ModuleType) -> None:
    dear = {**made("xception_cifar", 0.0, 0.0), "model": None, "smallest": 1.5, "why": "no member"}
    rows = [made("resnet20", 60.0, 1.01), {k: v for k, v in dear.items() if k != "validation"},
            made("nin_cifar", 65.5, 0.97), made("vgg11_bn", 50.0, 0.8, target="edge_tpu_like")]  # fmt: skip
    first, second = benchmark.tables(rows).split("\n\n")
    best = "| `nin_cifar` | 0.5 | 0.97 | 270,000 | 40.6 | 1,089 | 65.5 | 64.50 | 0 |"
    assert first.splitlines()[2] == f"{best} **short:** 3 epochs of 1,000 pictures |"
    assert [line.split("`")[1] for line in first.splitlines()[2:]] == ["nin_cifar", "resnet20", "xception_cifar"]
    assert "| at least 3.00 |" in first and "energy up to 1 times ResNet-20's, edge_tpu_like" in second


def test_rows_of_two_lengths_never_share_a_table_or_a_picture(benchmark: ModuleType) -> None:
    long = {**made("resnet20", 91.0, 1.0), "length": "full", "training": {"epochs": 30, "train pictures": 45000}}
    dear = {"family": "xception_cifar", "target": "onnxruntime", "cost": "latency", "share": 1.0, "model": None,
            "reference": 0.5, "smallest": 1.5}  # fmt: skip
    rows = [made("resnet20", 60.0, 1.0), made("nin_cifar", 50.0, 1.0), long, dear]
    short, full = benchmark.tables(rows).split("\n\n")
    assert "91.0" not in short and "60.0" not in full and "nin_cifar" not in full
    assert "xception_cifar" in short and "xception_cifar" in full
    assert ">nin<" not in benchmark.drawn(rows)


def test_the_picture_names_every_family_that_was_trained(benchmark: ModuleType) -> None:
    rows = [
        made(family, 60.0 + i, 1.0, target=target)
        for target in ("onnxruntime", "edge_tpu_like")
        for i, family in enumerate(("resnet20", "nin_cifar"))
    ]
    picture = benchmark.drawn([*rows, {**rows[0], "family": "xception_cifar", "model": None}])
    assert picture.count(">nin<") == picture.count(">resnet20<") == 2 and "xception" not in picture


def test_a_row_finds_trains_and_times_a_member_and_tells_what_costs_too_much(
    benchmark: ModuleType, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    for name, count in (("train", 5100), ("test", 20)):
        x, y = rng.integers(0, 255, (count, 32, 32, 3), np.uint8), np.arange(count) % 10
        np.savez(tmp_path / f"{name}.npz", x=x, y=y)
    where = Namespace(out=tmp_path / "rows", data=tmp_path, epochs=1, pictures=40, threads=1)
    row = benchmark.row("shufflenet_v1_cifar", "edge_tpu_like", 1.0, "a", 0, where)
    assert row["hardware"]["edge_tpu_like"]["energy"] <= row["limit"] == pytest.approx(1.05 * row["reference"])
    assert row["length"] == "short" and row["latency"]["median_ms"] > 0 and row["test reads"] == 1
    assert not (where.out / "runs" / "a").exists()
    dear = benchmark.row("mobilenet_v2_cifar", "edge_tpu_like", 1.0, "b", 0, where)
    assert (
        dear["model"] is None and dear["smallest"] > dear["limit"] and "No member of mobilenet_v2_cifar" in dear["why"]
    )
