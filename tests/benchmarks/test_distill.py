import json
from argparse import Namespace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from penjing.core.errors import PlanError
from penjing.data import load
from tiny import pictures

from .loading import loaded


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return loaded("distill")


def taught(terms: str, seed: int, validation: float, accuracy: float, **more: Any) -> dict[str, Any]:
    return {"part": "teach", "data": "cifar10", "student": "resnet20", "terms": terms, "seed": seed, "length": "full",
            "epochs": 10, "pictures asked": None, "train pictures": 45000, "validation": validation,
            "accuracy": accuracy, "cpu minutes": 40.0, "teacher": {"validation": 99.0}, **more}  # fmt: skip


def recovered(terms: str, seed: int, labels: bool, accuracy: float) -> dict[str, Any]:
    return {"part": "recover", "budget": "0.5x", "labels": labels, "place": 1, "terms": terms, "seed": seed,
            "length": "short", "epochs": 1, "train pictures": 256, "validation": accuracy, "accuracy": accuracy,
            "validation after the cut": 80.0, "cpu minutes": 9.0}  # fmt: skip


def test_the_best_terms_are_chosen_on_validation_over_all_seeds(benchmark: ModuleType, tmp_path: Path) -> None:
    where = Namespace(out=tmp_path, epochs=10, pictures=None, seeds=[0, 1])
    scores = {
        "none": 99.0,
        "dkd": 91.0,
        "dist": 92.0,
        "soft_targets": 90.0,
        "attention_transfer": 89.0,
        "fitnets": 88.0,
        "self_distillation": 87.0,
    }
    rows = [taught(t, seed, v + seed, 100 - v) for t, v in scores.items() for seed in (0, 1)]
    rows += [taught("fitnets", 2, 99.0, 99.0, **other) for other in ({"epochs": 1}, {"student": "resnet56_half"})]
    for i, row in enumerate(rows):
        (tmp_path / f"{i}.json").write_text(json.dumps(row))
    assert benchmark.best(where, 3) == ["dist", "dkd", "soft_targets"]
    (tmp_path / "3.json").unlink()
    with pytest.raises(PlanError, match="make dkd first"):
        benchmark.best(where, 2)


def test_every_row_has_a_name_of_its_own_that_tells_its_length(benchmark: ModuleType) -> None:
    where = Namespace(epochs=1, pictures=256, seeds=[0, 1])
    names = [name for name, _ in benchmark.rows(where)]
    assert len(names) == len(set(names)) == 70
    assert all("1epochs_256pictures_seed" in name for name in names)


def test_the_tables_put_seeds_together_and_tell_the_spread(benchmark: ModuleType) -> None:
    rows = [taught("none", 0, 89.0, 88.0), taught("none", 1, 90.0, 89.0), taught("dkd", 0, 91.0, 90.5)]
    told = benchmark.tables([*rows, recovered("dkd", 0, True, 85.0), recovered("dkd", 0, False, 84.0)])
    assert "| cifar10 | resnet20 | `none` | 88.50 | 88.00 to 89.00 | 89.50 |  | 99.00 | 40.0 | 0, 1 | 10 epochs" in told
    assert "| cifar10 | resnet20 | `dkd` | 90.50 | 90.50 to 90.50 | 91.00 | +2.00 |" in told
    assert told.index("| 0.5x | yes | `dkd` | 85.00") < told.index("| 0.5x | no | `dkd` | 84.00")
    assert "**short:** 1 epochs of 256 pictures" in told
    assert benchmark.drawn(rows).startswith("<svg") or "<svg" in benchmark.drawn(rows)


def test_pictures_without_classes_are_the_same_pictures(benchmark: ModuleType, tmp_path: Path) -> None:
    data = load(pictures(tmp_path), seed=0)
    blind = benchmark.without_classes(data)
    assert not blind.labelled and len(blind.train.labels) == 0
    for (x, y), (same, none) in zip(data.train.batches(32, seed=1), blind.train.batches(32, seed=1), strict=True):
        assert (x == same).all() and y is not None and none is None
    assert len(blind.train.subset([1, 2])) == 2
