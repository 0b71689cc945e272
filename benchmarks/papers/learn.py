"""Train a network from new weights so that a kill costs little: baselines, and the twins of what was cut."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save
from torch import nn

from papers.clock import Clock
from penjing.core import console
from penjing.core.files import write_whole
from penjing.core.protocols import Term
from penjing.data import Data
from penjing.training.checkpoint import Checkpoint
from penjing.training.loop import Options, fit

WEIGHTS, FACTS, TRAINING = "weights.safetensors", "facts.json", "training.safetensors"


def learned(
    model: nn.Module, data: Data, epochs: int, lr: float, seed: int, folder: Path, terms: Sequence[Term] = ()
) -> dict[str, Any]:
    """Train ``model`` in place by the labels, or take what was trained before; return how that went.

    Raises: KeyboardInterrupt when Ctrl-C ended the training, which is gone on with the next time.
    """
    if not (folder / FACTS).exists():
        folder.mkdir(parents=True, exist_ok=True)
        recipe = Options(epochs=epochs, lr=lr)
        with Clock(folder / "clock.json") as clock:
            history = fit(
                model, data.train, data.val, recipe, terms=terms, seed=seed,
                on_epoch=lambda row: console.say(f"  {folder.name}, epoch {row['epoch']} of {epochs}: {row}"),
                checkpoint=Checkpoint(folder / TRAINING),
            )  # fmt: skip
            if history.stopped:
                raise KeyboardInterrupt
            facts = {
                "epochs": epochs,
                "lr": lr,
                "train pictures": len(data.train),
                "validation accuracy": history.rows[-1]["val_accuracy"],
                "precision": history.precision,
                "trained on": history.device,
                **clock.minutes(),
            }
        tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
        write_whole(folder / WEIGHTS, save(tensors))
        write_whole(folder / FACTS, json.dumps(facts, indent=1).encode())
        (folder / TRAINING).unlink(missing_ok=True)
    model.load_state_dict(load_file(folder / WEIGHTS))
    model.eval()
    found: dict[str, Any] = json.loads((folder / FACTS).read_text())
    return found
