"""Every quantizer on networks that none was made for: it must run, export, load again, run packed and go on.

    python benchmarks/strangers_quantize.py --out benchmarks/results/strangers_quantize

Four small networks, trained on scikit-learn's digits for eight epochs: depthwise separable with ReLU6, residual with
squeeze and excite and ``F.relu``, a U of transposed convolutions, and a plain one without batch norm. Each is quantized
by every method at its usual bits, as it is and trained for an epoch, with the first and last layers too, and by a
budget of the file's size. A row is wrong unless the file is smaller and resembles the network, its bundle loads to the
same bits, the packed run answers alike, and (trained) a run that is left behind its first step ends as one that is not.
A ``refused`` row is one sentence instead. Rows tell that a way works there and what it takes, and no row how well it
does: an epoch is far too short for few bits.
"""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import onnxruntime
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import penjing
from penjing import api
from penjing.core.errors import PenjingError
from penjing.core.registry import entries
from penjing.data import Data, digits
from penjing.graph.quantized import precisions, quantized
from penjing.training.loop import fit
from penjing.training.options import Options
from rows import arguments, fill
from strangers_lowrank import leave

ALIKE = 0.1
"""How far, as a share of the root mean square, a file or a packed run may be whose layers round what they read."""

EQUAL = 1e-4
"""How far, relative to the largest output, where weights alone are rounded."""


class Separable(nn.Module):
    """A depthwise and a pointwise convolution, each with its norm and ReLU6."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.depth = nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False)
        self.point = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn1, self.bn2, self.act = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs), nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        """Return the features."""
        x = self.act(self.bn1(self.depth(x)))
        made: Tensor = self.act(self.bn2(self.point(x)))
        return made


class Squeezed(nn.Module):
    """Two convolutions, scaled by channel, beside their input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.down, self.up = nn.Linear(width, width // 4), nn.Linear(width // 4, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum behind the last ReLU."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        scale = torch.sigmoid(self.up(F.relu(self.down(y.mean((2, 3))))))
        return F.relu(x + y * scale[:, :, None, None])


class U(nn.Module):
    """Down twice and up again by transposed convolutions, with what was read on the way down beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.b = nn.Sequential(nn.Conv2d(16, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU())
        self.c = nn.Sequential(nn.Conv2d(32, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.LeakyReLU(0.1))
        self.up1, self.up2 = nn.ConvTranspose2d(64, 32, 2, 2), nn.ConvTranspose2d(32, 16, 2, 2)
        self.d = nn.Conv2d(64, 32, 3, padding=1, padding_mode="reflect")
        self.e = nn.Conv2d(32, 16, 3, padding=1)
        self.head = nn.Conv2d(16, 10, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, pooled from the map."""
        a = self.a(x)
        b = self.b(a)
        x = F.relu(self.d(torch.cat([self.up1(self.c(b)), b], 1)))
        x = F.relu(self.e(torch.cat([self.up2(x), a], 1)))
        made: Tensor = self.head(x).mean((2, 3))
        return made


def separable() -> nn.Module:
    """Build the depthwise separable network."""
    stem = [nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU6()]
    blocks = [Separable(16, 32, 1), Separable(32, 64, 2), Separable(64, 64, 1)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def squeezed() -> nn.Module:
    """Build the residual network with squeeze and excite."""
    stem = [nn.Conv2d(1, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU()]
    down = [nn.Conv2d(24, 40, 3, 2, 1, bias=False), nn.BatchNorm2d(40), nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(40, 10)]
    return nn.Sequential(*stem, Squeezed(24), *down, Squeezed(40), *head)


def plain() -> nn.Module:
    """Build the network without norms."""
    body = [nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    tail = [nn.Conv2d(32, 48, 3, padding="same"), nn.Tanh(), nn.Flatten(), nn.Linear(48 * 16, 64), nn.ELU()]
    return nn.Sequential(*body, *tail, nn.Dropout(0.1), nn.Linear(64, 10))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], float]] = {
    "separable": (separable, 0.1), "squeezed": (squeezed, 0.1), "u": (U, 0.05), "plain": (plain, 0.05)
}  # fmt: skip
"""Each with the rate that it is trained at."""

METHODS = sorted(entries("quantizer"))
WAYS = ("as it is", "trained", "ends", "budget")


@cache
def trained(name: str) -> tuple[nn.Module, Data]:
    """Return a network, trained shortly, and its data."""
    torch.manual_seed(0)
    make, lr = NETWORKS[name]
    model, data = make(), digits()
    fit(model, data.train, data.val, Options(epochs=8, lr=lr, batch=64, precision="32-true"), seed=0)
    return model.eval(), data


def ways(method: str, way: str) -> tuple[list[Any], dict[str, str] | None]:
    """Return steps and budget."""
    step: dict[str, Any] = {"method": method}
    if way == "ends":
        step["ends"] = True
    tuning = [{"train": {"epochs": 1, "lr": 0.005, "batch": 64}}] if way == "trained" else []
    return [{"quantize": step | ({"budget": {"size": "0.5x"}} if way == "budget" else {})}, *tuning], (
        {"size": "0.6x"} if way == "budget" else None
    )


def row(network: str, method: str, way: str) -> dict[str, Any]:
    """Take one way with one network, and look at what comes out."""
    steps, budget = ways(method, way)
    model, data = trained(network)
    x = next(iter(data.val.batches(64)))[0]
    told = {"network": network, "method": method, "way": way, "steps": steps, "budget": budget}
    with tempfile.TemporaryDirectory() as folder:
        place, both = Path(folder), []
        for stopped in (False, True) if way == "trained" else (False,):
            seen = place / f"seen{stopped}"
            if not stopped:
                seen.touch()
            todo = [steps[0], leave(str(seen)), *steps[1:], "export", *(["check"] if budget else [])]
            make = partial(api.run, copy.deepcopy(model), data, todo, budget, folder=place / f"run{stopped}")
            try:
                both.append(make())
            except KeyboardInterrupt:
                both.append(make())
            except PenjingError as error:
                return told | {"refused": f"{type(error).__name__}: {error}"}
        first, facts = both[0], both[0].results
        builder = partial(copy.deepcopy, model)
        whole = penjing.load(place / "runFalse", builder=builder, packed=False)
        fast = penjing.load(place / "runFalse", builder=builder)
        small = first.model.eval()
        reads = any(layer.reads is not None for layer in quantized(small).values())
        limit = ALIKE if reads else EQUAL
        (path,) = first.files.values()
        found = told | {
            "bits": {name: one.bits for name, one in precisions(small).items()},
            "accuracy": [one["accuracy"] for one in facts["rows"]],
            "bytes": [one["size"] for one in facts["rows"]],
            "bundle": sum(file.stat().st_size for file in (place / "runFalse" / "model.penjing").iterdir()),
            "kernels": sorted({type(one).__name__ for one in fast.modules() if "Xnor" in type(one).__name__}),
            "file against network": _gap(torch.from_numpy(_run(path, x)), small, x, reads),
            "packed against network": _gap(fast(x).detach(), small, x, reads),
            "seconds": {
                one["name"]: one["seconds"] for one in facts["stages"] if one["name"] in ("quantize", "prune", "train")
            },
            "remarks": facts["remarks"],
            "stay in floats": [one["where"] for one in facts["pinned"] if "floats" in one["why"]],
        }
        wrong = [f"{one['name']}: {one['difference']:.1e}" for one in facts["certificates"] if not one["ok"]]
        for what in ("file", "packed"):
            if not found[f"{what} against network"] < limit:
                wrong.append(f"the {what} is another network")
        with torch.no_grad():
            if not torch.equal(whole(x), small(x)):
                wrong.append("the bundle loads to another network")
        if not _equal(both[-1].model, first.model):
            wrong.append("a run that goes on ends otherwise")
        if not found["bytes"][-1] < found["bytes"][0]:
            wrong.append("the file is not smaller")
        return found | ({"error": "; ".join(wrong)} if wrong else {})


def _equal(one: nn.Module, other: nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def _run(path: Path, x: Tensor) -> Any:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]


@torch.no_grad()
def _gap(theirs: Tensor, model: nn.Module, x: Tensor, reads: bool) -> float:
    """Return how far outputs are from the network's: as a share of the root mean square, or of the largest."""
    ours = model(x).double()
    apart = theirs.double() - ours
    if reads:
        return float(apart.square().mean().sqrt() / ours.square().mean().sqrt())
    return float(apart.abs().max() / ours.abs().max())


def rows() -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Name the rows."""
    for way in WAYS:
        for network in NETWORKS:
            for method in METHODS:
                yield f"{network}_{method}_{way.replace(' ', '_')}", partial(row, network, method, way)


def main() -> None:
    """Fill the rows."""
    where = arguments(__doc__, "benchmarks/results/strangers_quantize").parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    fill(where.out, rows(), where.only)


if __name__ == "__main__":
    main()
