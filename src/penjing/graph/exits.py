"""Networks that may answer early: small classifiers behind inner layers, and when their answer is taken."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses import FakeTensor

from penjing.core.errors import PlanError, did_you_mean
from penjing.core.outputs import first_tensor
from penjing.graph.stages import Branch

Visit: TypeAlias = Callable[[int, Tensor], bool]
"""Called with the number of an exit and its logits; true ends the forward there."""

PREFIX = "exits/"
"""What the names of exits' tensors begin with in a bundle."""

LARGEST = 65_536
"""Channels and classes of an exit that is read from a file."""


class Separable(nn.Sequential):
    """Two depthwise convolutions, each followed by a 1x1 convolution, a batch norm and a ReLU; the first has a stride.

    Shapes: [n, read, h, w] → [n, written, ⌈h / stride⌉, ⌈w / stride⌉].
    """

    def __init__(self, read: int, written: int, stride: int) -> None:
        layers: list[nn.Module] = []
        for step, width in ((stride, read), (1, written)):
            layers += [
                nn.Conv2d(read, read, 3, step, 1, groups=read, bias=False),
                nn.Conv2d(read, width, 1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
        super().__init__(*layers)


class Exit(nn.Module):
    """An auxiliary classifier: separable convolutions down to the last stage's width, pooling, and a linear layer.

    Shapes: a map [n, channels, h, w] → logits [n, classes]; ``features`` [n, width].
    Paper: Zhang, Song, Gao, Chen, Bao, Ma, Be Your Own Teacher, ICCV 2019, figure 2.
    """

    def __init__(self, branch: Branch) -> None:
        super().__init__()
        self.branch = branch
        widths = zip(branch.widths, branch.widths[1:], branch.strides, strict=False)
        self.blocks = nn.Sequential(*(Separable(*one) for one in widths))
        self.head = nn.Linear(branch.widths[-1], branch.classes)

    def features(self, x: Tensor) -> Tensor:
        """Return what the linear layer reads."""
        return F.adaptive_avg_pool2d(self.blocks(x), 1).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.head(self.features(x))
        return logits


class _Leave(BaseException):
    """Ends a forward on the way; no ``except Exception`` in the user's code may catch it."""

    def __init__(self, of: object, logits: Tensor) -> None:
        self.of, self.logits = of, logits


class Exiting(nn.Module):
    """A network with exits. In evaluation mode it answers at the first exit that is sure enough.

    It is sure where its largest class probability is no less than its threshold. A picture alone ends the forward
    there, so that what lies behind is not computed; in a batch all is computed, and each picture gets the answer it
    would get alone. With ``early`` false, and in training mode, it answers as ``network`` does. ``every`` tells what
    all exits say.

    Shapes: x [n, channels, h, w] → [n, classes].
    """

    def __init__(self, network: nn.Module, exits: Sequence[Exit], thresholds: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.exits = nn.ModuleList(exits)
        self.thresholds = tuple(thresholds)
        self.early = True
        self.train(network.training)

    @property
    def places(self) -> tuple[str, ...]:
        """The layers that the exits stand behind."""
        return tuple(one.branch.at for one in self.heads)

    @property
    def heads(self) -> list[Exit]:
        """The exits, in the order of execution."""
        return [one for one in self.exits if isinstance(one, Exit)]

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the logits."""
        if self.training or not self.early:
            return first_tensor(self.network(*args, **kwargs))
        if _is_one_picture(args):
            return self.walk(lambda i, logits: bool(confidence(logits) >= self.thresholds[i]), *args, **kwargs)
        *heard, answer = self.every(*args, **kwargs)
        for logits, threshold in zip(reversed(heard), reversed(self.thresholds), strict=True):
            answer = torch.where((confidence(logits) >= threshold)[:, None], logits, answer)
        return answer

    def every(self, *args: Any, **kwargs: Any) -> list[Tensor]:
        """Return the logits of all exits, in order, and then the network's own."""
        heard: list[Tensor] = []

        def note(_: int, logits: Tensor) -> bool:
            heard.append(logits)
            return False

        last = self.walk(note, *args, **kwargs)
        return [*heard, last]

    def walk(self, visit: Visit, *args: Any, **kwargs: Any) -> Tensor:
        """Run the network, asking at every exit whether to end there; return the logits of where it ended."""

        def ask(i: int, _: nn.Module, __: Any, output: Tensor) -> None:
            logits = self.exits[i](output)
            if visit(i, logits):
                raise _Leave(ask, logits)

        hooks = [
            self.network.get_submodule(at).register_forward_hook(partial(ask, i)) for i, at in enumerate(self.places)
        ]
        try:
            return first_tensor(self.network(*args, **kwargs))
        except _Leave as leave:
            if leave.of is not ask:
                raise
            return leave.logits
        finally:
            for hook in hooks:
                hook.remove()


class Every(nn.Module):
    """A network with exits as one that returns all logits by name, to be exported."""

    def __init__(self, model: Exiting) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return ``exit_0``, ``exit_1``, ... and ``logits``."""
        *heard, last = self.model.every(x)
        return {**{f"exit_{i}": logits for i, logits in enumerate(heard)}, "logits": last}


class Leaving(nn.Module):
    """A network with exits that always ends at one of them, or at the end for None: what a picture costs there."""

    def __init__(self, model: Exiting, at: int | None) -> None:
        super().__init__()
        self.model, self.at = model, at

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of that exit."""
        return self.model.walk(lambda i, _: i == self.at, x)


def confidence(logits: Tensor) -> Tensor:
    """Return the largest class probability, [n, classes] → [n]."""
    return logits.float().softmax(1).amax(1)


def _is_one_picture(args: Sequence[Any]) -> bool:
    """Tell whether an input is one picture whose numbers are there, so that what is computed may depend on them."""
    first = next((value for value in args if isinstance(value, Tensor)), None)
    if first is None or isinstance(first, FakeTensor) or torch.compiler.is_compiling():
        return False
    return len(first) == 1


# ------------------------------------------------------------------------------------------------------ in a bundle


def parted(model: nn.Module) -> tuple[nn.Module, dict[str, Tensor], list[dict[str, Any]]]:
    """Return the network alone, the tensors of its exits, and what else there is to say of them, as plain data."""
    if not isinstance(model, Exiting):
        return model, {}, []
    tensors = {f"{PREFIX}{name}": tensor for name, tensor in model.exits.state_dict().items()}
    told = [
        asdict(one.branch) | {"threshold": threshold}
        for one, threshold in zip(model.heads, model.thresholds, strict=True)
    ]
    return model.network, tensors, told


def joined(network: nn.Module, tensors: Mapping[str, Tensor], told: Sequence[Mapping[str, Any]]) -> nn.Module:
    """Return a network with the exits that ``parted`` told of; without any, the network itself.

    Raises: PlanError for exits that do not fit the network or their tensors.
    """
    if not told and not tensors:
        return network
    modules = dict(network.named_modules())
    exits = []
    for facts in told:
        branch = Branch(facts["at"], tuple(facts["widths"]), tuple(facts["strides"]), facts["classes"])
        if branch.at not in modules:
            raise PlanError(f"there is no layer {branch.at!r} for an exit.{did_you_mean(branch.at, modules)}")
        with torch.device("meta"):
            exits.append(Exit(branch))
    model = Exiting(network, exits, [float(facts["threshold"]) for facts in told]).eval()
    own = model.exits.state_dict()
    given = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}
    if odd := sorted(own.keys() ^ given.keys()):
        raise PlanError(f"the tensors of its exits are others than those it tells of, {odd[0]} first.")
    for name, tensor in given.items():
        if tensor.shape != own[name].shape or tensor.dtype != own[name].dtype:
            raise PlanError(
                f"{name} of its exits is {list(tensor.shape)} of {tensor.dtype}, and not {list(own[name].shape)} of "
                f"{own[name].dtype}."
            )
    model.exits.load_state_dict(given, assign=True)
    return model


def is_told(facts: Any) -> bool:
    """Tell whether something is what ``parted`` says of an exit, of sizes that can be."""
    if not isinstance(facts, dict) or facts.keys() != {"at", "widths", "strides", "classes", "threshold"}:
        return False
    counts = (facts["widths"], facts["strides"], [facts["classes"]])
    whole = all(
        isinstance(some, list) and some and all(type(n) is int and 0 < n <= LARGEST for n in some) for some in counts
    )
    threshold = facts["threshold"]
    sure = isinstance(threshold, float | int) and not isinstance(threshold, bool) and 0 <= threshold <= 1
    return bool(whole and sure and isinstance(facts["at"], str) and len(facts["widths"]) == len(facts["strides"]) + 1)
