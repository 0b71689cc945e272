r"""Train penjing's own small network on the digits, and save its weights with the numbers they reached.

    python benchmarks/train_digits.py --split 0 --out src/penjing/zoo/digits_net.safetensors \
        --row benchmarks/results/digits_0.json

made the weights that travel with the package; other splits make further baselines. Takes about half a minute of one
core. The same command gives the same weights on the same machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

import penjing
from penjing.core import console
from penjing.data import digits
from penjing.training.evaluate import evaluate
from penjing.training.loop import Options, fit
from penjing.training.state import chance
from penjing.zoo.digits import DigitsNet, digits_net


def train(split: int, epochs: int) -> tuple[DigitsNet, dict[str, Any]]:
    """Return the trained network and a row about it; test is read once, after everything is decided."""
    data = digits(split=split)
    with chance(split, "initial weights", torch.device("cpu")):
        model = digits_net()
    recipe = Options(epochs=epochs, lr=0.1, batch=64, precision="32-true")
    start = time.perf_counter()
    history = fit(model, data.train, data.val, recipe, seed=split)
    seconds = time.perf_counter() - start
    val, test = evaluate(model, data.val), evaluate(model, data.test)
    row = {
        "split": split,
        "val_accuracy": val.accuracy,
        "test_accuracy": test.accuracy,
        "val_correct": f"{val.correct}/{val.count}",
        "test_correct": f"{test.correct}/{test.count}",
        "seconds": round(seconds, 1),
        "device": history.device,
        "processor": torch.cpu.get_capabilities().get("cpu_name", platform.processor()),
        "threads": torch.get_num_threads(),
        "versions": {
            "penjing": penjing.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "recipe": asdict(recipe),
        "command": shlex.join(["python", "benchmarks/train_digits.py", *sys.argv[1:]]),
    }
    return model, row


def write(content: bytes, path: Path) -> None:
    """Write the whole file or nothing."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--split",
        type=int,
        default=0,
        help="number of the digits' split; also the seed of the initial weights and of the order",
    )
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1, help="part of the result: other counts round differently")
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file to write")
    parser.add_argument("--row", type=Path, help="the .json file to write; default: beside the weights")
    options = parser.parse_args()
    row_path = options.row or options.out.with_suffix(".json")
    for path in (options.out, row_path):
        if not path.parent.is_dir():
            parser.error(f"there is no folder {path.parent}")
    torch.set_num_threads(options.threads)
    model, row = train(options.split, options.epochs)
    metadata = {key: value if isinstance(value, str) else json.dumps(value) for key, value in row.items()}
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    write(save(weights, metadata), options.out)
    write(f"{json.dumps(row, indent=2)}\n".encode(), row_path)
    console.say(
        f"{options.out}: {row['val_accuracy']:.2f} % on validation, {row['test_accuracy']:.2f} % on test, "
        f"{row['seconds']} s"
    )


if __name__ == "__main__":
    main()
