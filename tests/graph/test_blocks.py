"""Which modules may be left out, on networks that make it hard, and that a draft foretells what is left."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penjing.core.errors import PlanError
from penjing.core.plan import Plan
from penjing.graph.blocks import take_out
from penjing.graph.draft import Draft
from penjing.graph.graph import Graph
from penjing.graph.proof import prove
from penjing.graph.trace import plain, trace
from penjing.rewrites.layers import layers

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))


class Block(nn.Module):
    """``x`` plus a convolution of it, normalised, then a ReLU; a multiple of the branch where that is asked."""

    def __init__(self, width: int = 4, scale: float = 1.0) -> None:
        super().__init__()
        self.conv, self.norm, self.scale = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), scale

    def branch(self, x: Tensor) -> Tensor:
        y: Tensor = self.scale * self.norm(self.conv(x))
        return y

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.branch(x))


class Net(nn.Module):
    """A stem with a ReLU, a body, a classifier; ``run`` says how the body is called."""

    def __init__(self, body: nn.Module, run: Callable[[Net, Tensor], Tensor] | None = None, relu: bool = True) -> None:
        super().__init__()
        self.stem, self.body, self.head = nn.Conv2d(3, 4, 1), body, nn.Linear(4, 5)
        self.run, self.relu = run, relu

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(x) if self.relu else x
        x = self.body(x) if self.run is None else self.run(self, x)
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


class InPlace(Block):
    def forward(self, x: Tensor) -> Tensor:
        y = self.branch(x)
        y += x
        return y.relu_()


class PreActivation(Block):
    """The ReLU stands before the convolution, and the stream goes on as it is."""

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm(self.conv(F.relu(x)))


class LayerScale(Block):
    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((4, 1, 1), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        return self.gamma * self.branch(x) + x


class Difference(Block):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x - self.branch(x))


class Twofold(nn.Module):
    """Two residual sums in one module, as in a transformer's block."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.a(x)
        return x + self.b(F.relu(x))


class Gated(Block):
    """A branch that is multiplied by what it reads vanishes with its sum."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + x * torch.sigmoid(self.branch(x)))


class Functional(nn.Module):
    """The block holds its weight itself, so that a channel site bears its name."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.out = nn.Parameter(torch.randn(6, 4, 3, 3)), nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.out(F.relu(F.conv2d(x, self.weight, padding=1)))


class Counting(Block):
    """A side effect that is no tensor anybody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x)


class Named(nn.Module):
    """Reads an attribute of a block of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Block(), Block()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.first(x))
        return y + self.first.conv.weight.sum()


class Listed(nn.Module):
    """Runs its blocks from a plain list as well registered."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])
        self.order = list(self.blocks)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.order:
            x = block(x)
        return x


class Told(Block):
    """Is called with more than a tensor."""

    def forward(self, x: Tensor, twice: bool = False) -> Tensor:
        return F.relu(x + (2 if twice else 1) * self.branch(x))


class Leaving(Block):
    """Leaves its branch behind for others."""

    def forward(self, x: Tensor) -> Tensor:
        self.left = self.branch(x)
        return F.relu(x + self.left)


class Narrowing(Block):
    """Changes the stride, and so has a shortcut of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.short = nn.Conv2d(4, 4, 3, 2, 1), nn.Conv2d(4, 4, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.short(x) + self.branch(x))


class Projected(Narrowing):
    """Keeps the shape, but not what it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.short = nn.Conv2d(4, 4, 3, 1, 1), nn.Conv2d(4, 4, 1)


class Half(Block):
    """Hands on half of what it reads."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(0.5 * x + self.branch(x))


def shared() -> Net:
    net = Net(nn.Sequential(Block(), Block()))
    net.body[1].conv = net.body[0].conv
    return net


def twice_named() -> Net:
    net = Net(nn.Sequential(Block(), Block()))
    net.other = net.body[0]
    return net


def dense() -> Net:
    return Net(Block(8), lambda net, x: net.body(torch.cat([x, x], 1))[:, :4] + x)


def long_skip(net: Net, x: Tensor) -> Tensor:
    y: Tensor = net.body(x)
    return y + 0.5 * x


def two_places(net: Net, x: Tensor) -> Tensor:
    y: Tensor = net.body(x) + net.body(F.relu(net.stem.bias[:, None, None] + x))
    return y


FOUND: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "sequential": (lambda: Net(nn.Sequential(Block(), Narrowing(), Block())), ["body.0", "body.2"]),
    "in place": (lambda: Net(nn.Sequential(InPlace(), InPlace())), ["body.0", "body.1"]),
    "pre-activation": (lambda: Net(nn.Sequential(PreActivation(), PreActivation()), relu=False), ["body.0", "body.1"]),
    "layer scale": (lambda: Net(LayerScale(), relu=False), ["body"]),
    "a fixed scale": (lambda: Net(Block(scale=0.17)), ["body"]),
    "a difference": (lambda: Net(Difference()), ["body"]),
    "two sums": (lambda: Net(Twofold(), relu=False), ["body"]),
    "a gate in the branch": (lambda: Net(Gated()), ["body"]),
    "a weight of its own": (lambda: Net(Functional()), ["body#block"]),
    "a count": (lambda: Net(nn.Sequential(Counting(), Block())), ["body.0", "body.1"]),
    "shared weights": (shared, ["body.0", "body.1"]),
    "two names": (twice_named, ["body.0", "body.1"]),
    "called in a row": (lambda: Net(Block(), lambda net, x: net.body(net.body(x))), ["body"]),
    "called at two places": (lambda: Net(Block(), two_places), ["body"]),
    "a skip around it": (lambda: Net(nn.Sequential(Block(), Block()), long_skip), ["body.0", "body.1"]),
    "inside a dense one": (dense, ["body"]),
}

WHOLE: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "an attribute read elsewhere": (lambda: Net(Named()), "body.first"),
    "a plain list of blocks": (lambda: Net(Listed()), "body.blocks.0"),
    "another argument": (lambda: Net(Told(), lambda net, x: net.body(x, twice=True)), "body"),
}

NONE: dict[str, Callable[[], nn.Module]] = {
    "a ReLU that changes what it reads": lambda: Net(Block(), relu=False),
    "a stride": lambda: Net(Narrowing()),
    "a projection": lambda: Net(Projected()),
    "half": lambda: Net(Half()),
    "a second result": lambda: Net(Leaving(), lambda net, x: net.body(x) + net.body.left),
    "no sum": lambda: Net(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())),
    "called once with another sum": lambda: Net(Block(), lambda net, x: net.body(net.body(x) - 1)),
}


def traced(build: Callable[[], nn.Module]) -> tuple[nn.Module, Graph]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build()
        with torch.no_grad():
            model(torch.randn(16, 3, 8, 8))
    model = plain(model)
    return model, trace(model, (X,))


@pytest.mark.parametrize("name", FOUND)
def test_blocks_are_found_proved_and_counted(name: str) -> None:
    build, expected = FOUND[name]
    model, graph = traced(build)
    assert list(graph.blocks) == expected and not graph.block_notes
    assert [site.size for site in layers().find(graph)] == [1] * len(expected)
    for names in [*([one] for one in expected), expected]:
        kept = {one: np.arange(0) for one in names}
        small = copy.deepcopy(model)
        layers().apply(small, graph, kept)
        assert prove(graph, model, small, {}, names).ok
        assert not prove(graph, model, small, {}).ok, "it does change something"
        draft = Draft(graph, Plan.of("layers", kept, layers().find(graph)), lambda small=small: small)
        again = Draft(trace(small, (X,), proof=False), Plan(), lambda small=small: small)
        for fact in ("parameters", "nonzero", "buffers", "peak_elements"):
            assert getattr(draft, fact) == getattr(again, fact), fact
        assert [(x.macs, x.out_size) for x in draft.layers] == [(x.macs, x.out_size) for x in again.layers]
        assert [(x.operator, x.out_elements) for x in draft.passes] == [
            (x.operator, x.out_elements) for x in again.passes
        ]


@pytest.mark.parametrize("name", WHOLE)
def test_a_block_whose_absence_breaks_the_users_code_stays_whole_with_a_note(name: str) -> None:
    build, where = WHOLE[name]
    _, graph = traced(build)
    assert where not in graph.blocks
    (note, *_) = [note for note in graph.block_notes if note.where == where]
    assert note.why.startswith("could not be left out: the network without it ")


def test_what_reads_an_attribute_of_one_block_does_not_hold_back_the_other() -> None:
    _, graph = traced(lambda: Net(Named()))
    assert list(graph.blocks) == ["body.second"]


@pytest.mark.parametrize("name", NONE)
def test_what_does_not_return_what_it_reads_is_no_block(name: str) -> None:
    _, graph = traced(NONE[name])
    assert not graph.blocks and not layers().find(graph)


def test_a_network_that_never_gives_the_same_twice_has_no_blocks() -> None:
    _, graph = traced(lambda: Net(Block(), lambda net, x: net.body(x) + torch.rand(())))
    assert not graph.blocks and not graph.block_notes


def test_a_block_that_is_registered_twice_goes_from_everywhere() -> None:
    model, graph = traced(twice_named)
    layers().apply(model, graph, {"body.0": np.arange(0)})
    assert type(model.other) is nn.Identity and type(model.body[0]) is nn.Identity


def test_names_that_are_no_blocks_are_refused_with_the_closest() -> None:
    model, graph = traced(FOUND["sequential"][0])
    with pytest.raises(PlanError, match=r"body\.1 is no block that may be left out .*body\.2"):
        layers().apply(model, graph, {"body.1": np.arange(0)})
    with pytest.raises(PlanError, match=r"no module 'body\.7' to take out"):
        take_out(model, ["body.7"])
