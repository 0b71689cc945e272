from dataclasses import asdict
from types import ModuleType

import pytest

from penjing import zoo
from penjing.exporting.measure import Ratio
from penjing.steps.order import ordered

from .loading import loaded


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return loaded("zoo")


def test_every_network_for_pictures_of_that_size_has_a_row(benchmark: ModuleType) -> None:
    found = benchmark.networks()
    assert {name for name in zoo.BUILDERS if name.endswith("_cifar")} < set(found)
    assert {"resnet20", "vgg16_bn_wide"} < set(found)
    assert {"resnet18", "mobilenet_v1", "digits_net", "alexnet"}.isdisjoint(found)


def test_validation_is_told_right_after_the_cut_and_once_more_before_the_export(benchmark: ModuleType) -> None:
    names = [type(step).__name__.rstrip("_") for step in ordered(benchmark.steps())]
    assert names == ["prune", "evaluate", "reconstruct", "recalibrate", "train", "evaluate", "export", "check"]


def test_the_table_tells_shares_and_proofs_that_fail(benchmark: ModuleType) -> None:
    row = {
        "network": "resnet20", "length": "short", "training": {"epochs": 2, "train pictures": 1500},
        "original params": 200_000.0, "params": 50_000, "original macs": 40_000_000, "macs": 20_000_000,
        "validation after training": 61.0, "validation after the cut": 30.5, "validation after recovery": 58.25,
        "original accuracy": 60.125, "accuracy": 57.0, "original latency": {"median_ms": 1.5},
        "latency": {"median_ms": 1.0}, "speed-up": asdict(Ratio(1.5, 1.4, 1.6)),
        "certificates": [{"name": "a", "ok": True, "difference": 3e-7}, {"name": "b", "ok": True, "difference": 1e-8}],
    }  # fmt: skip
    line = benchmark.table([row]).splitlines()[-1]
    assert line == (
        "| `resnet20` | 200,000 | 40.0 | 25.0% | 50.0% | 61.00 | 30.50 | 58.25 | 60.12 | 57.00 | 1.500 | 1.000 | 1.50 "
        "| 2 hold, within 3e-07 | **short:** 2 epochs of 1,500 pictures |"
    )
    row["certificates"][1]["ok"] = False  # type: ignore[index]
    assert "| fails: b |" in benchmark.table([row])
