"""What papers of low rank claim, in small, on the published CIFAR-10 networks.

    python benchmarks/lowrank_claims.py --data CIFAR_FOLDER --models MODELS_FOLDER --out benchmarks/results/lowrank

``kim_vgg16`` is Tucker-2 with the ranks of EVBMF on VGG-16, and one epoch of training (Kim et al., ICLR 2016: one-shot
ranks, then one short fine-tune). ``cp_resnet20`` puts every convolution of ResNet-20 that may be as a CP chain and
trains it (Lebedev et al., ICLR 2015, met training that blew up; Phan et al., ECCV 2020). ``denton_vgg16`` writes the
first layer of VGG-16 in a few colours and its other layers in blocks of clusters (Denton et al., NIPS 2014), without
training. The folders are those of ``hardware.py``; the test set is read once a network.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from hardware import CALIBRATION, RESNET56, VGG16, Network
from penjing import api
from penjing.graph.chains import chains_of, merged
from penjing.steps.factorize import factorize
from penjing.steps.recalibrate import recalibrate
from penjing.steps.reconstruct import reconstruct
from penjing.steps.train import train
from rows import main

RESNET20 = Network("resnet20", "resnet20_cifar10.safetensors", RESNET56.normal, RESNET56.terms)


def row(network: Network, steps: list[Any], where: argparse.Namespace) -> dict[str, Any]:
    """Take the steps, export, and tell what is left and how far each factorised layer is from what it was."""
    original = network.build(where)
    done = api.run(original, network.data(where, 0), [*steps, "export"])
    result = done.results
    before, after = result["rows"][:2]
    return {
        "network": network.name,
        "original accuracy": before["accuracy"],
        "accuracy": after["accuracy"],
        "validation": result["validation"],
        "macs": after["macs"] / before["macs"],
        "params": after["params"] / before["params"],
        "speed-up": after["ratio"],
        "ranks": {path: [spec.out_channels for spec in specs[:-1]] for path, specs in chains_of(done.model).items()},
        "errors": errors(done.model, original) if len(steps) < 3 else {},
        "whole": [note["where"] for note in result["pinned"] if "stays whole" in note["why"]],
        "training": result["trained"],
        "seconds": {stage["name"]: stage["seconds"] for stage in result["stages"]},
        "test reads": result["test_reads"],
    }


def errors(model: torch.nn.Module, original: torch.nn.Module) -> dict[str, float]:
    """Return the relative error of the weights of each layer in a chain."""
    whole = merged(model, original)
    found = {}
    for path in chains_of(model):
        old, new = (one.get_submodule(path).weight.detach() for one in (original, whole))
        found[path] = float((new - old).norm() / old.norm())
    return found


def rows(where: argparse.Namespace) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Name every row and say how it is made."""
    for weaken in (1.0, 0.8):
        kim = [factorize(rewrite="tucker2", ranks={"evbmf": weaken}), recalibrate(images=CALIBRATION)]
        for epochs in (0, 1):
            taught = [train(epochs=epochs, lr=VGG16.lr, mixup=VGG16.mixup, terms=VGG16.terms)] if epochs else []
            yield f"kim_vgg16_evbmf{weaken}_{epochs}epochs", partial(row, VGG16, [*kim, *taught], where)
    for ratio in (2, 4):
        chains = [factorize(rewrite="cp", ranks={"ratio": ratio}), recalibrate(images=CALIBRATION)]
        for epochs in (0, 3):
            taught = [train(epochs=epochs, lr=0.005, terms=RESNET20.terms)] if epochs else []
            yield f"cp_resnet20_ratio{ratio}_{epochs}epochs", partial(row, RESNET20, [*chains, *taught], where)
    for colours in (4, 8, 16):
        first = factorize(rewrite="monochromatic", ranks=colours, include=("features.0",))
        yield f"denton_vgg16_colours{colours}", partial(row, VGG16, [first], where)
    for ratio in (2, 3):
        blocks = factorize(rewrite="bicluster", ranks={"ratio": ratio}, include=("conv:*",), exclude=("features.0",))
        yield f"denton_vgg16_blocks_ratio{ratio}", partial(row, VGG16, [blocks], where)
        refit = [blocks, reconstruct(images=CALIBRATION), recalibrate(images=CALIBRATION)]
        yield f"denton_vgg16_blocks_ratio{ratio}_refitted", partial(row, VGG16, refit, where)


if __name__ == "__main__":
    main(__doc__, "benchmarks/results/lowrank", rows, "data", "models")
