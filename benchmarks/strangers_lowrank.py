"""Every factorisation on networks that none was made for: it must run, prove, export, load again and go on.

    python benchmarks/strangers_lowrank.py --out benchmarks/results/strangers_lowrank

The three small networks of ``strangers_methods``, trained on scikit-learn's digits; a residual network with projected
shortcuts and no biases, one of every geometry that torch's layers have, and the first in other precisions, memory
formats, modes and wrappers, with random weights. Ranks come by a rule (a quarter of the full rank), by a budget of
0.7x of the MACs, in one plan with channels at 0.5x, and by pruning a network factorised at full rank (PRF), whose
chains are merged where they no longer pay. A row is wrong unless all proofs hold, the file computes what the network
does, its bundle loads to the same bits, and (PRF, and the one of every geometry) a run that is left behind its first
step ends as one that is not. A ``refused`` row is one sentence instead. Rows tell that a way works there, and no row
how well it does.
"""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

import penjing
from penjing import api
from penjing.core.errors import PenjingError
from penjing.core.registry import entries
from penjing.data import Data
from penjing.graph.chains import chains_of
from penjing.graph.trace import plain
from penjing.rewrites.factored import Factored
from penjing.steps.state import Run, State
from rows import arguments, fill
from strangers_methods import NETWORKS, trained


class Basic(nn.Module):
    """Two 3x3 convolutions beside the input, projected by a strided 1x1 where the shape changes."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        project = nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        self.downsample = None if stride == 1 and inputs == width else project

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum after the last ReLU."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class Geometry(nn.Module):
    """Grouped, dilated, strided, transposed, weight-normalised and shared layers, one behind the other."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 5, 2, 2)
        self.grouped = nn.Conv2d(24, 32, 3, padding=1, groups=2)
        self.dilated = nn.Conv2d(32, 40, (3, 5), padding="same", dilation=(2, 1))
        self.up = nn.ConvTranspose2d(40, 24, 4, 2, 1)
        self.normed = weight_norm(nn.Conv2d(24, 32, 3, padding=1))
        self.shared = nn.Conv2d(32, 32, 3, padding=1, padding_mode="reflect")
        self.wrapped = nn.Conv2d(32, 24, 3, 2, padding=1, padding_mode="circular")
        self.deep = nn.Conv3d(24, 16, (1, 3, 3))
        self.mix, self.head = nn.Linear(16, 32), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = F.relu(self.dilated(F.relu(self.grouped(F.relu(self.stem(x))))))
        x = F.relu(self.normed(F.relu(self.up(x))))
        x = F.relu(self.wrapped(F.relu(self.shared(F.relu(self.shared(x))))))
        x = self.deep(x.unsqueeze(2)).squeeze(2).permute(0, 2, 3, 1)
        made: Tensor = self.head(F.relu(self.mix(x)).mean((1, 2)))
        return made


def resnet() -> nn.Module:
    """Build a residual network of three stages, as torchvision writes them."""
    torch.manual_seed(0)
    stem = [nn.Conv2d(3, 16, 7, 2, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    blocks = [Basic(16, 16, 1), Basic(16, 32, 2), Basic(32, 48, 2)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 5)).eval()


def geometry() -> nn.Module:
    """Build the network of every geometry."""
    torch.manual_seed(0)
    return Geometry().eval()


def frozen() -> nn.Module:
    """Build the residual network with parameters that no training changes."""
    return resnet().requires_grad_(False)


ODD: dict[str, Callable[[], nn.Module]] = {
    "resnet": resnet,
    "geometry": geometry,
    "double": lambda: resnet().double(),
    "half": lambda: resnet().half(),
    "bfloat16": lambda: resnet().bfloat16(),
    "channels_last": lambda: resnet().to(memory_format=torch.channels_last),  # type: ignore[call-overload]
    "training": lambda: resnet().train(),
    "frozen": frozen,
    "parallel": lambda: nn.DataParallel(resnet()),
    "sequential_of_one": lambda: nn.Sequential(resnet()),
}

REWRITES = sorted(name for name, one in entries("rewrite").items() if issubclass(one, Factored))

TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4}
"""How far a file may be from its network, relative to the largest output; half precisions are not exported here."""


@dataclass(frozen=True)
class leave:  # noqa: N801  (a step)
    """Leave the run the first time it comes here, as Ctrl-C does."""

    seen: str

    def __call__(self, state: State, run: Run) -> State:
        """Return the state where it was seen before."""
        if not Path(self.seen).exists():
            Path(self.seen).touch()
            raise KeyboardInterrupt
        return state


def ways(rewrite: str) -> dict[str, tuple[list[Any], dict[str, str] | None]]:
    """Return the ways to factorise by one rewrite: steps and the budget."""
    rule = {"factorize": {"rewrite": rewrite, "ranks": {"share": 0.25}}}
    joint = {"criterion": "l1", "rewrite": ["channels", rewrite], "allocator": {"knapsack": {"loss": "scores"}}}
    found: dict[str, tuple[list[Any], dict[str, str] | None]] = {
        "rule": ([rule], None),
        "budget": ([{"factorize": {"rewrite": rewrite, "step": 1}}], {"macs": "0.7x"}),
        "joint": ([{"prune": joint | {"step": 1}}], {"macs": "0.5x"}),
    }
    if rewrite in ("svd", "svd_spatial", "tucker2"):
        full = {"factorize": {"rewrite": rewrite, "ranks": "full"}}
        ranks = {"prune": {"criterion": "l2", "include": ["rank:*"], "step": 1, "budget": {"macs": "0.7x"}}}
        found["prf"] = ([full, ranks, "merge"], {"macs": "0.7x"})
    return found


def row(network: str, rewrite: str, way: str) -> dict[str, Any]:
    """Take one way with one network, and look at what comes out."""
    steps, budget = ways(rewrite)[way]
    data: Data | None = None
    if network in NETWORKS:
        model, data = trained(network)
        steps = [*steps, {"reconstruct": {"images": 128}}, "recalibrate"]
        x = next(iter(data.val.batches(16)))[0]
    else:
        model = ODD[network]()
        x = torch.randn(4, 3, 32, 32).to(next(model.parameters()).dtype)
    told = {"network": network, "rewrite": rewrite, "way": way, "steps": steps, "budget": budget}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        given = {"example": x} if data is None else {}
        both = []
        for stopped in (False, True) if way == "prf" or network == "geometry" else (False,):
            seen = place / f"seen{stopped}"
            if not stopped:
                seen.touch()
            todo = [steps[0], leave(str(seen)), *steps[1:], *(["export"] if x.dtype in TOLERANCE else [])]
            make = partial(api.run, copy.deepcopy(model), data, todo, budget, folder=place / f"run{stopped}", **given)
            try:
                both.append(make())
            except KeyboardInterrupt:
                both.append(make())
            except PenjingError as error:
                return told | {"refused": f"{type(error).__name__}: {error}"}
        first = both[0]
        again = penjing.load(place / "runFalse", builder=lambda: copy.deepcopy(model))
        facts = first.results
        proofs = {one["name"]: one["difference"] for one in facts["certificates"]}
        found = told | {
            "chains": sorted(chains_of(first.model)),
            "macs": facts["rows"][-1]["macs"] / facts["rows"][0]["macs"],
            "proofs": proofs,
            "file against network": _gap(first.files, first.model, x) if x.dtype in TOLERANCE else None,
            "seconds": {
                one["name"]: one["seconds"] for one in facts["stages"] if one["name"] in ("factorize", "merge")
            },
            "remarks": facts["remarks"],
            "stay whole": [one["where"] for one in facts["pinned"] if "stays whole" in one["why"]],
        }
        wrong = [f"{one['name']}: {one['difference']:.1e}" for one in facts["certificates"] if not one["ok"]]
        if x.dtype in TOLERANCE and not found["file against network"] < TOLERANCE[x.dtype]:
            wrong.append("the file is another network")
        if not _equal(again, first.model):
            wrong.append("the bundle loads to another network")
        if not _equal(both[-1].model, first.model):
            wrong.append("a run that goes on ends otherwise")
        if not found["macs"] < 1 or (budget and found["macs"] > float(budget["macs"][:-1])):
            wrong.append("the MACs are not fewer")
        return found | ({"error": "; ".join(wrong)} if wrong else {})


def _equal(one: nn.Module, other: nn.Module) -> bool:
    a, b = plain(one).state_dict(), plain(other).state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@torch.no_grad()
def _gap(files: dict[str, Path], model: nn.Module, x: Tensor) -> float:
    """Return how far the exported file is from the network, relative to the largest output."""
    (path,) = files.values()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    wanted = {"tensor(float)": torch.float32, "tensor(double)": torch.float64, "tensor(float16)": torch.float16}
    given = session.get_inputs()[0]
    (theirs,) = session.run(None, {given.name: x.to(wanted[given.type]).numpy()})
    ours = model.eval()(x).double()
    return float((ours - torch.from_numpy(theirs).double()).abs().max() / ours.abs().max())


def rows() -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Name the rows: all ways on the networks of their own, some on what only stores or wraps one otherwise."""
    for network in (*NETWORKS, *ODD):
        alike = network in ODD and network not in ("resnet", "geometry")
        for rewrite in ("tucker2",) if alike else REWRITES:
            for way in ways(rewrite):
                if way != "budget" or network in NETWORKS:
                    yield f"{network}_{rewrite}_{way}", partial(row, network, rewrite, way)


def main() -> None:
    """Fill the rows."""
    where = arguments(__doc__, "benchmarks/results/strangers_lowrank").parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    fill(where.out, rows(), where.only)


if __name__ == "__main__":
    main()
