from typing import Any

import pytest


def latency(median: float, low: float, high: float) -> dict[str, Any]:
    return {
        "median_ms": median,
        "low_ms": low,
        "high_ms": high,
        "threads": 1,
        "batch": 1,
        "runtime": "onnxruntime 1.31",
    }


def row(name: str, wrong: int, of: int, macs: int, **more: Any) -> dict[str, Any]:
    error = 100 * wrong / of
    counts = {"params": macs // 100, "macs": macs, "size": macs // 25}
    return {
        "name": name,
        "accuracy": 100 - error,
        "error": error,
        "wrong": wrong,
        "of": of,
        "note": "",
        **counts,
        **more,
    }


def half(width: int, macs: int, ms: float, alone: float) -> dict[str, Any]:
    return {"in_channels": 16, "out_channels": width, "macs": macs, "measured_ms": ms, "predicted_ms": alone}


def spending() -> dict[str, Any]:
    return {
        "on": "onnxruntime",
        "how": "measured",
        "before_ms": 2.5,
        "after_ms": 1.1,
        "before_macs": 41_000_000,
        "after_macs": 10_000_000,
        "noise": 0.1,
        "note": "",
        "uncut": ["fc"],
        "layers": [
            {"name": "conv1", "kind": "conv", "lost_ms": 0.3,
             "before": half(16, 10_000_000, 0.8, 0.8), "after": half(13, 2_500_000, 0.5, 0.3)},
            {"name": "layer1.0.conv1", "kind": "conv", "lost_ms": 0.0,
             "before": half(64, 30_000_000, 1.4, 1.4), "after": half(32, 7_000_000, 0.4, 0.4)},
            {"name": "fc", "kind": "linear", "lost_ms": 0.0,
             "before": half(10, 640, 0.1, 0.1), "after": half(10, 640, 0.1, 0.1)},
        ],
        "others": [{"operator": "ReorderOutput", "kind": "layout", "before_ms": 0.2, "after_ms": 0.1}],
        "findings": [
            {"where": "conv1", "cause": "odd width", "detail": "writes 13 channels, no multiple of 4",
             "remedy": "keep 12 or 16 in place of 13", "brings": 0.2},
            {"where": "fc", "cause": "no cause found", "detail": "it takes 0.1 ms", "remedy": "look elsewhere",
             "brings": None},
        ],
    }  # fmt: skip


@pytest.fixture
def results() -> dict[str, Any]:
    return {
        "penjing": "0.1.0",
        "name": "digits_net on digits",
        "created": "2026-11-07T14:03:22+00:00",
        "seconds": 93.1,
        "command": "penjing compress digits_net digits --budget latency=0.6x",
        "seed": 7,
        "recipe": "steps:\n  - prune: {criterion: taylor}\n",
        "versions": {"python": "3.11.9", "torch": "2.13.0", "onnxruntime": "1.31"},
        "machine": {"cpu": "A quiet CPU", "cores": 2, "threads": 1},
        "budget": [
            {
                "cost": "latency",
                "asked": "0.6x",
                "limit": 1.2,
                "unit": "ms",
                "measured": 1.1,
                "met": True,
                "where": "exported file",
            }
        ],
        "rows": [
            row(
                "original",
                4,
                360,
                41_000_000,
                memory=2_000_000,
                latency=latency(2.53, 2.4, 2.7),
                ratio={"median": 1.0, "low": 1.0, "high": 1.0},
            ),
            row(
                "penjing",
                5,
                360,
                10_000_000,
                memory=1_000_000,
                latency=latency(1.1, 1.05, 1.15),
                ratio={"median": 2.3, "low": 2.2, "high": 2.4},
            ),
            row("cut at random, same widths", 9, 360, 10_000_000, latency=latency(1.1, 1.05, 1.15)),
            row("from scratch, same widths", 40, 360, 10_000_000, latency=latency(1.1, 1.05, 1.15), note="same epochs"),
        ],
        "test_reads": 1,
        "validation": {"before": 99.0, "after": 98.7},
        "sites": [
            {"site": "conv1", "kind": "channels", "before": 16, "after": 16},
            {"site": "layer1.0.conv1", "kind": "channels", "before": 64, "after": 32},
            {"site": "fc", "kind": "ranks", "before": 10, "after": 4},
        ],
        "pinned": [{"where": "layer2.0", "units": 16, "why": "zero-padded by a constant", "line": "resnet.py:40"}],
        "certificates": [
            {"name": "cut equals zeroed", "difference": 3e-7, "tolerance": 1e-5, "ok": True, "detail": "64 pictures"}
        ],
        "diagnostics": [{"layer": "conv1", "verdict": "norm criteria carry no information here", "spread": 0.031}],
        "training": [
            {"epoch": 1, "lr": 0.1, "loss": 0.5, "val_accuracy": 97.0, "val_loss": 0.4, "seconds": 2.0},
            {"epoch": 2, "lr": 0.01, "loss": 0.2, "val_accuracy": 98.7, "val_loss": 0.3, "seconds": 2.0},
        ],
        "stages": [{"name": "prune", "seconds": 2.1, "detail": "taylor"}],
        "rounds": [
            {"round": 1, "predicted": {"latency": 1.0}, "measured": {"latency": 1.25}, "detail": "table tightened"}
        ],
        "files": {"model.onnx": 400_000},
        "spending": spending(),
    }
