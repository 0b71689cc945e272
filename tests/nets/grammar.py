"""Random networks from a grammar of stages.

A network is a list of steps over numbered values, so its forward is one loop and its structure can be printed.
Nothing in a step names a channel count except the zero padding of an option-A shortcut: all other sizes are read
from the tensors, so every network may be cut freely.
"""

# A module call is typed as Any by torch.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .hostile import randomise, shuffle

CLASSES = 5


@dataclass(frozen=True)
class Value:
    """An activation while the network is being written: its number, channels and side length."""

    index: int
    channels: int
    side: int


@dataclass(frozen=True)
class Step:
    """One operation: which one, on which values, with which module and number."""

    stage: str
    operation: str
    inputs: tuple[int, ...]
    module: str
    number: int
    result: str


def option_a(x: Tensor, pad: int) -> Tensor:
    """Halve space by slicing, and pad channels with zeros on both sides."""
    return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, pad, pad))


OPERATIONS: dict[str, Callable[[list[Tensor], int], Tensor]] = {
    "relu": lambda x, _: F.relu(x[0]),
    "sigmoid": lambda x, _: torch.sigmoid(x[0]),
    "add": lambda x, _: x[0] + x[1],
    "multiply": lambda x, _: x[0] * x[1],
    "maximum": lambda x, _: torch.maximum(x[0], x[1]),
    "concat": lambda x, _: torch.cat(x, 1),
    "first half": lambda x, _: x[0].chunk(2, 1)[0],
    "second half": lambda x, _: x[0][:, x[0].shape[1] // 2 :],
    "even": lambda x, _: x[0][:, ::2],
    "odd": lambda x, _: x[0][:, 1::2],
    "shuffle": lambda x, groups: shuffle(x[0], groups),
    "pixel shuffle": lambda x, factor: F.pixel_shuffle(x[0], factor),
    "option a": lambda x, pad: option_a(x[0], pad),
    "max pool": lambda x, _: F.max_pool2d(x[0], 2),
    "average pool": lambda x, _: F.avg_pool2d(x[0], 2),
    "upsample": lambda x, _: F.interpolate(x[0], scale_factor=2.0),
    "spatial mean": lambda x, _: x[0].mean((2, 3), keepdim=True),
    "flatten": lambda x, _: x[0].flatten(1),
    "flatten channels last": lambda x, _: x[0].permute(0, 2, 3, 1).flatten(1),
}


class GrammarNet(nn.Module):
    """A network whose structure is data."""

    def __init__(self, steps: list[Step], parts: dict[str, nn.Module]) -> None:
        super().__init__()
        self.steps = tuple(steps)
        self.parts = nn.ModuleDict(parts)

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for step in self.steps:
            inputs = [values[index] for index in step.inputs]
            if step.module:
                values.append(self.parts[step.module](*inputs))
            else:
                values.append(OPERATIONS[step.operation](inputs, step.number))
        return values[-1]

    def describe(self) -> str:
        """Return one line per step: value number, stage, operation, inputs, channels and side length."""
        lines = []
        for index, step in enumerate(self.steps, 1):
            what = f"{step.module} = {step.operation}" if step.module else step.operation
            number = f" {step.number}" if step.number else ""
            sources = ", ".join(map(str, step.inputs))
            lines.append(f"{index:3} {step.stage:22} {what}{number} ({sources}) -> {step.result}")
        return "\n".join(lines)


class Writer:
    """Writes steps and keeps track of shapes."""

    def __init__(self, rng: random.Random, channels: int, side: int) -> None:
        self.rng = rng
        self.steps: list[Step] = []
        self.parts: dict[str, nn.Module] = {}
        self.stage = "stem"
        self.input = Value(0, channels, side)

    def width(self, multiple: int = 1, low: int = 8, high: int = 32) -> int:
        """Draw a channel count that is a multiple of the given one."""
        return multiple * self.rng.randint(-(-low // multiple), high // multiple)

    def write(
        self, operation: str, *inputs: Value, channels: int, side: int, number: int = 0, module: str = ""
    ) -> Value:
        result = Value(len(self.steps) + 1, channels, side)
        sources = tuple(value.index for value in inputs)
        shape = f"{channels} x {side}" if side else str(channels)
        self.steps.append(Step(self.stage, operation, sources, module, number, shape))
        return result

    def simple(self, operation: str, *inputs: Value, number: int = 0) -> Value:
        """Write an operation that keeps the shape of its first input."""
        return self.write(operation, *inputs, channels=inputs[0].channels, side=inputs[0].side, number=number)

    def concat(self, *inputs: Value) -> Value:
        return self.write("concat", *inputs, channels=sum(v.channels for v in inputs), side=inputs[0].side)

    def module(self, part: nn.Module, x: Value, channels: int, side: int, title: str = "") -> Value:
        kind = type(part).__name__
        name = f"{kind.lower()}{len(self.parts)}"
        self.parts[name] = part
        return self.write(title or kind, x, channels=channels, side=side, module=name)

    def again(self, x: Value, earlier: Value) -> Value:
        """Run the module that wrote an earlier value once more, on a value of the same shape as then."""
        step = self.steps[earlier.index - 1]
        return self.write(step.operation, x, channels=earlier.channels, side=earlier.side, module=step.module)

    def conv(self, x: Value, channels: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> Value:
        bias = self.rng.random() < 0.5
        part = nn.Conv2d(x.channels, channels, kernel, stride, kernel // 2, groups=groups, bias=bias)
        title = f"Conv2d {kernel}x{kernel} stride {stride} groups {groups}{' bias' * bias}"
        return self.module(part, x, channels, (x.side - 1) // stride + 1, title)

    def norm(self, x: Value) -> Value:
        return self.module(nn.BatchNorm2d(x.channels), x, x.channels, x.side)

    def unit(
        self, x: Value, channels: int, kernel: int = 3, stride: int = 1, groups: int = 1, act: bool = True
    ) -> Value:
        """Write a convolution, usually a norm, usually a ReLU or a per-channel PReLU."""
        x = self.conv(x, channels, kernel, stride, groups)
        if self.rng.random() < 0.9:
            x = self.norm(x)
        if not act:
            return x
        if self.rng.random() < 0.15:
            return self.module(nn.PReLU(channels), x, channels, x.side)
        return self.simple("relu", x)


def convolution(net: Writer, x: Value) -> Value:
    stride = 2 if x.side >= 8 and net.rng.random() < 0.3 else 1
    return net.unit(x, net.width(), net.rng.choice((1, 3)), stride)


def residual(net: Writer, x: Value) -> Value:
    y = net.unit(net.unit(x, net.width()), x.channels, act=False)
    return net.simple("relu", net.simple("add", x, y))


def projected_residual(net: Writer, x: Value) -> Value:
    stride, channels = (2 if x.side >= 8 else 1), net.width()
    y = net.unit(net.unit(x, net.width(), stride=stride), channels, act=False)
    short = net.unit(x, channels, 1, stride, act=False)
    return net.simple("relu", net.simple("add", y, short))


def preactivated_residual(net: Writer, x: Value) -> Value:
    y = net.conv(net.simple("relu", net.norm(x)), net.width())
    return net.simple("add", net.conv(net.simple("relu", net.norm(y)), x.channels), x)


def option_a_residual(net: Writer, x: Value) -> Value:
    pad = net.rng.randint(1, 4)
    channels = x.channels + 2 * pad
    y = net.unit(net.unit(x, net.width(), stride=2), channels, act=False)
    short = net.write("option a", x, channels=channels, side=y.side, number=pad)
    return net.simple("relu", net.simple("add", y, short))


def dense_block(net: Writer, x: Value) -> Value:
    growth = net.rng.randint(4, 8)
    for _ in range(net.rng.randint(2, 3)):
        x = net.concat(x, net.conv(net.simple("relu", net.norm(x)), growth))
    return net.unit(x, net.width(), 1)


def inverted_residual(net: Writer, x: Value) -> Value:
    inner = net.width(high=40)
    y = net.unit(x, inner, 1)
    y = net.unit(y, inner * net.rng.choice((1, 1, 2)), groups=inner)
    return net.simple("add", x, net.unit(y, x.channels, 1, act=False))


def grouped(net: Writer, x: Value) -> Value:
    groups = net.rng.choice((2, 3, 4))
    y = net.unit(x, net.width(groups), 1)
    y = net.unit(y, net.width(groups), groups=groups)
    return net.unit(y, net.width(), 1)


def squeeze_excite(net: Writer, x: Value) -> Value:
    y = net.unit(x, net.width())
    gate = net.write("spatial mean", y, channels=y.channels, side=1)
    gate = net.simple("relu", net.conv(gate, net.width(high=12), 1))
    return net.simple("multiply", y, net.simple("sigmoid", net.conv(gate, y.channels, 1)))


def shuffled_groups(net: Writer, x: Value) -> Value:
    groups = net.rng.choice((2, 3, 4))
    channels = net.width(groups * groups)
    y = net.simple("shuffle", net.unit(x, channels, 1), number=groups)
    return net.unit(y, channels, 1, groups=groups)


def halves(net: Writer, x: Value, strided: bool) -> tuple[Value, Value]:
    first, second = ("even", "odd") if strided else ("first half", "second half")
    half = x.channels // 2
    a = net.write(first, x, channels=half, side=x.side)
    return a, net.write(second, x, channels=half, side=x.side)


def split_transform_concat(net: Writer, x: Value) -> Value:
    a, b = halves(net, net.unit(x, net.width(2)), strided=net.rng.random() < 0.3)
    return net.concat(a, net.unit(b, net.width()))


def shuffle_units(net: Writer, x: Value) -> Value:
    x = net.unit(x, net.width(2, high=24), 1)
    for _ in range(net.rng.randint(1, 2)):
        a, b = halves(net, x, strided=False)
        y = net.unit(net.unit(b, b.channels, 1), b.channels, groups=b.channels, act=False)
        x = net.simple("shuffle", net.concat(a, net.unit(y, b.channels, 1)), number=2)
    return x


def skip_over_scale(net: Writer, x: Value) -> Value:
    y = net.write("max pool", x, channels=x.channels, side=x.side // 2)
    y = net.unit(y, net.width())
    if net.rng.random() < 0.5:
        channels = net.width()
        y = net.module(nn.ConvTranspose2d(y.channels, channels, 2, stride=2), y, channels, x.side)
    else:
        y = net.unit(net.write("upsample", y, channels=y.channels, side=x.side), net.width())
    return net.unit(net.concat(x, y), net.width())


def sub_pixels(net: Writer, x: Value) -> Value:
    channels = net.rng.randint(4, 9)
    y = net.conv(x, 4 * channels)
    y = net.write("pixel shuffle", y, channels=channels, side=2 * x.side, number=2)
    return net.simple("relu", y)


def pooling(net: Writer, x: Value) -> Value:
    kind = net.rng.choice(("max pool", "average pool"))
    return net.unit(net.write(kind, x, channels=x.channels, side=x.side // 2), net.width())


def branches(net: Writer, x: Value) -> Value:
    """Two or three branches, joined by a concat, a sum, a product or a maximum."""
    join = net.rng.choice(("concat", "add", "multiply", "maximum"))
    channels = net.width()
    ends = []
    for kernel in (1, 3, 5)[: net.rng.randint(2, 3)]:
        ends.append(net.unit(x, net.width(high=16) if join == "concat" else channels, kernel))
    if join == "concat":
        return net.concat(*ends)
    y = ends[0]
    for end in ends[1:]:
        # Products of bounded factors only: a chain of free ones would outgrow single precision.
        y = net.simple(join, y, net.simple("sigmoid", end) if join == "multiply" else end)
    return y


def tied(net: Writer, x: Value) -> Value:
    """One convolution runs twice, its second result added to the first."""
    y = net.unit(x, net.width())
    once = net.conv(y, y.channels)
    twice = net.again(net.simple("relu", once), once)
    return net.norm(net.simple("add", once, twice))


STAGES: dict[str, Callable[[Writer, Value], Value]] = {
    stage.__name__: stage
    for stage in (
        convolution,
        residual,
        projected_residual,
        preactivated_residual,
        option_a_residual,
        dense_block,
        inverted_residual,
        grouped,
        squeeze_excite,
        shuffled_groups,
        split_transform_concat,
        shuffle_units,
        skip_over_scale,
        sub_pixels,
        pooling,
        branches,
        tied,
    )
}

NEEDS_EVEN_SIDE = {"option_a_residual", "skip_over_scale", "pooling"}


def fitting(x: Value) -> list[str]:
    """Return the stages that this shape allows."""
    names = list(STAGES)
    if x.side < 6 or x.side % 2:
        names = [name for name in names if name not in NEEDS_EVEN_SIDE]
    if x.side > 8:
        names.remove("sub_pixels")
    if x.channels > 40:
        # Narrow first, so that no chain of concats grows without end.
        names = ["convolution", "grouped", "split_transform_concat"]
    return names


def head(net: Writer, x: Value) -> Value:
    """End in pooled logits, in logits from a flattened map, or in a dense map."""
    kind = net.rng.choice(("pooled", "flatten", "flatten channels last", "dense"))
    net.stage = "head"
    if kind == "dense":
        return net.conv(x, net.rng.choice((1, 3)), 1)
    if kind == "pooled":
        x = net.write("spatial mean", x, channels=x.channels, side=1)
        kind = "flatten"
    while x.side > 5:
        x = net.write("max pool", x, channels=x.channels, side=x.side // 2)
    features = x.channels * x.side**2
    x = net.write(kind, x, channels=features, side=0)
    if net.rng.random() < 0.5:
        hidden = net.width()
        x = net.simple("relu", net.module(nn.Linear(features, hidden), x, hidden, 0))
        features = hidden
    return net.module(nn.Linear(features, CLASSES), x, CLASSES, 0)


def random_net(seed: int) -> tuple[GrammarNet, tuple[Tensor, ...]]:
    """Return the network of this seed, in eval mode, and its positional inputs, a batch of two."""
    rng = random.Random(seed)
    channels, side = rng.choice((1, 3, 4)), rng.choice((8, 10, 12, 16))
    net = Writer(rng, channels, side)
    x = net.unit(net.input, net.width())
    for number in range(1, rng.randint(3, 8) + 1):
        name = rng.choice(fitting(x))
        net.stage = f"{number} {name}"
        x = STAGES[name](net, x)
    head(net, x)
    model = GrammarNet(net.steps, net.parts)
    randomise(model, seed)
    image = torch.randn((2, channels, side, side), generator=torch.Generator().manual_seed(seed))
    return model.eval(), (image,)
