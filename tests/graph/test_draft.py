"""What a draft computes by arithmetic is what the cut model has, counted by others."""

from __future__ import annotations

import copy
import gc
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nets.hostile import HOSTILE
from penjing.core.plan import Entry, Plan
from penjing.graph.draft import Draft
from penjing.graph.program import capture
from penjing.graph.surgery import cut
from penjing.graph.trace import trace
from penjing.rewrites.weights import weights

from .checks import Network, half, hostile, single

CONVOLUTIONS = ("convolution",)
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm")

FOREIGN = {
    "dynamic_convolution": "the batch is folded into the groups, which no layer of one sample can say",
    "non_local_block": "activations are multiplied with each other, which is no layer",
    "attention_scaled_by_shape": "activations are multiplied with each other",
    "attention_over_channels": "activations are multiplied with each other",
    "attention_heads_by_hand": "activations are multiplied with each other",
    "attention_module": "activations are multiplied with each other",
    "bilinear_pooling": "activations are multiplied with each other",
    "low_rank_kernel": "a kernel is multiplied out from parameters, once for all samples",
    "low_rank_kernel_by_einsum": "a kernel is multiplied out from parameters",
}


def draft_of(net: Network, kept: dict[str, Any]) -> Draft:
    plan = Plan.of("channels", kept, net.graph.sites)
    return Draft(net.graph, plan, lambda: net.small(kept))


def counted(model: nn.Module, net: Network) -> tuple[int, int]:
    """Return multiply-accumulates of convolutions and of products, as torch counts them, of one sample."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(*net.args, **net.kwargs)
    flops = {str(op): n for op, n in counter.get_flop_counts()["Global"].items()}

    def total(names: tuple[str, ...]) -> int:
        found: int = sum(n for op, n in flops.items() if op.rpartition(".")[2] in names)
        assert found % (2 * net.graph.batch) == 0
        return found // (2 * net.graph.batch)

    return total(CONVOLUTIONS), total(PRODUCTS)


@pytest.mark.parametrize("name", HOSTILE)
def test_draft_counts_what_the_cut_model_has(name: str) -> None:
    net = hostile(name)
    # Of a single channel, torch's einsum makes a plain multiplication, which it does not count.
    last = {} if name == "einsum_classifier" else single(net.graph, seed=5)
    for kept in ({}, half(net.graph, seed=4), last):
        draft = draft_of(net, kept)
        small = draft.model()
        assert draft.parameters == sum(p.numel() for p in small.parameters())
        assert draft.buffers == sum(b.numel() for b in small.buffers())
        if kept == {} or name not in FOREIGN:
            kinds = ("conv", "linear")
            macs = {kind: sum(layer.macs for layer in draft.layers if layer.kind == kind) for kind in kinds}
            assert ((macs["conv"], macs["linear"]) == counted(small, net)) == (name not in FOREIGN)


def test_layers_after_a_cut_are_those_of_a_new_trace() -> None:
    for name in ("residual", "depthwise_multiplier_2", "grouped_4", "unet_transposed", "flatten_module", "conv1d"):
        net = hostile(name)
        kept = half(net.graph, seed=6)
        again = trace(net.small(kept), net.args, net.kwargs).layers
        for ours, theirs in zip(draft_of(net, kept).layers, again, strict=True):
            facts = (
                "name",
                "kind",
                "in_channels",
                "out_channels",
                "groups",
                "kernel",
                "stride",
                "in_size",
                "out_size",
                "macs",
            )
            assert [getattr(ours, f) for f in facts] == [getattr(theirs, f) for f in facts]


def test_zeroed_weights_inside_removed_channels_are_not_counted_twice() -> None:
    net = hostile("plain_chain")
    model = copy.deepcopy(net.model)
    names = {s.name: s for s in weights().find(net.graph)}
    rng = np.random.default_rng(0)
    chosen = {n: np.sort(rng.choice(s.size, s.size // 3, replace=False)) for n, s in names.items()}
    kept = half(net.graph, seed=7)
    entries = (*Plan.of("weights", chosen, list(names.values())), *Plan.of("channels", kept, net.graph.sites))
    weights().apply(model, net.graph, chosen)
    cut(model, net.graph, kept)
    left = sum(int((p != 0).sum()) for p in model.parameters())
    assert Draft(net.graph, Plan(entries), lambda: model).nonzero == left


# ------------------------------------------------------------------------------------------------------ peak memory


class Branching(nn.Module):
    """The stem's result waits while a wide branch is computed; views and in-place results take no room."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide, self.back = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 20, 1), nn.Conv2d(20, 4, 1)
        self.head = nn.Linear(4 * 36, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.back(torch.sigmoid(self.wide(x)).relu_())
        y.add_(x)
        z: Tensor = self.head(y.transpose(2, 3).contiguous().flatten(1))
        return z


class Narrowing(nn.Module):
    """The input is the largest tensor there is, and is dead after the first layer."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 6, 3, stride=2), nn.Conv2d(6, 10, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([torch.relu(self.one(x)), torch.tanh(self.one(x))], 2)
        y: Tensor = self.two(x).mean((2, 3))
        return y


class Keeping(nn.Module):
    """A wide map is long dead but for a view of it, while another wide one is made."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Conv2d(3, 20, 1), nn.Conv2d(3, 16, 1), nn.Linear(36, 5)

    def forward(self, x: Tensor) -> Tensor:
        a = self.one(x)
        rows = a.flatten(2)
        mean = a.mean((2, 3))
        other = torch.sigmoid(self.two(x)).mean((1, 2, 3))
        y: Tensor = self.head((rows * mean[..., None]).sum(1)) + other[:, None]
        return y


class Watched(torch.fx.Interpreter):
    """Runs a program, forgets each value after its last use, and counts the elements of all memory in use."""

    def __init__(self, module: torch.fx.GraphModule, own: set[int]) -> None:
        super().__init__(module, garbage_collect_values=True)
        self.own, self.peak = own, 0

    def run_node(self, n: torch.fx.Node) -> Any:
        result = super().run_node(n)
        held = [*self.env.values(), result]
        storages = {
            t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() // t.element_size()
            for value in held
            for t in (value if isinstance(value, list | tuple) else [value])
            if isinstance(t, Tensor) and t.untyped_storage().data_ptr() not in self.own
        }
        self.peak = max(self.peak, sum(storages.values()))
        return result


@pytest.mark.parametrize("model", [Branching(), Narrowing(), Keeping()], ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("seed", [None, 0, 1])
def test_peak_is_that_of_a_run_that_forgets_at_once(model: nn.Module, seed: int | None) -> None:
    x = torch.randn(2, 3, 21, 21) if isinstance(model, Narrowing) else torch.randn(2, 3, 6, 6)
    graph = trace(model.eval(), (x,))
    kept = {} if seed is None else half(graph, seed)
    small = copy.deepcopy(model)
    cut(small, graph, kept)
    program = capture(small, (x,), {})
    state = {**dict(small.named_parameters()), **dict(small.named_buffers())}
    own = {t.untyped_storage().data_ptr() for t in state.values()}
    watched = Watched(program.module, own)
    with torch.no_grad():
        gc.disable()
        watched.run(*program.arguments(state, ((x,), {})))
        gc.enable()
    assert watched.peak % 2 == 0
    assert Draft(graph, Plan.of("channels", kept, graph.sites), lambda: small).peak_elements == watched.peak // 2


def test_zeros_that_were_there_are_not_counted_again() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(4 * 4 * 4, 2))
    with torch.no_grad():
        model[2].weight[:, :4] = 0
        model[0].bias[:2] = 0
    graph = trace(model.eval(), (torch.randn(2, 3, 8, 8),))
    exact = sum(int((p != 0).sum()) for p in model.parameters())
    assert Draft(graph, Plan(), lambda: model).nonzero == exact
    every = np.arange(8 * 4 * 9)
    plan = Plan((Entry("weights", "2.weight", every[:200], 288),))
    small = copy.deepcopy(model)
    with torch.no_grad():
        small[2].weight.view(-1)[200:] = 0
    assert Draft(graph, plan, lambda: model).nonzero == sum(int((p != 0).sum()) for p in small.parameters())
    kept = {"0": np.array([0, 3, 5, 6])}
    cut_model = copy.deepcopy(model)
    cut(cut_model, graph, kept)
    found = Draft(graph, Plan.of("channels", kept, graph.sites), lambda: model).nonzero
    assert found == sum(int((p != 0).sum()) for p in cut_model.parameters())


def test_units_that_span_several_channels_say_so() -> None:
    model = nn.Sequential(nn.Conv2d(3, 12, 3), nn.GroupNorm(4, 12), nn.ReLU(), nn.Conv2d(12, 4, 3))
    (site,) = trace(model.eval(), (torch.randn(2, 3, 8, 8),)).sites
    assert (site.size, site.width) == (4, 3)
