from __future__ import annotations

import copy
import sys
import threading
import types
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from nets.hostile import HOSTILE
from penjing.core.errors import PlanError, TraceError
from penjing.graph.program import capture
from penjing.graph.proof import prove
from penjing.graph.surgery import cut
from penjing.graph.trace import plain, trace
from penjing.zoo import resnet56

from .checks import half, hostile, outputs

PICTURES = (torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)),)


class Net(nn.Module):
    """Two convolutions and a classifier, with something done in between."""

    def __init__(self, what: Any = None) -> None:
        super().__init__()
        self.what = what or (lambda x: x)
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.what(self.first(x))
        y: Tensor = self.head(F.relu(self.second(x)).mean((2, 3)))
        return y


# ------------------------------------------------------------------------------------------------------ what is found


def test_resnet56_with_padded_shortcuts() -> None:
    """Widths 16, 32, 64 with 9 blocks each: the stream of a stage, and one inner site a block."""
    graph = trace(resnet56().eval(), (torch.randn(2, 3, 32, 32),))
    sizes = {site.name: site.size for site in graph.sites}
    inner = {f"layer{s}.{b}.conv1": 8 * 2**s for s in (1, 2, 3) for b in range(9)}
    assert {name: sizes.pop(name) for name in inner} == inner
    # What is left is the first stage's stream: it lies padded in the middle of the others, and goes through all three.
    assert sizes == {"conv1": 16}
    assert graph.total == 16 + 2 * 9 * (16 + 32 + 64)
    pinned = 9 * 16 + 9 * 48
    assert graph.total - graph.free == pinned == sum(note.units for note in graph.notes)
    assert {note.why for note in graph.notes} == {"is zero-padded by a constant number of channels"}
    assert all(note.fixed_by_code and note.line.startswith("resnet.py:") for note in graph.notes)
    stream = graph.site("conv1")
    last = next(slot for slot in stream.slots if slot.tensor == "linear.weight")
    assert last.role == "in" and last.index.tolist() == list(range(24, 40)) and last.unit.tolist() == list(range(16))


def test_layers_stand_in_order_with_their_sizes() -> None:
    graph = trace(Net(), PICTURES)
    assert [layer.name for layer in graph.layers] == ["first", "second", "head"]
    first, second, head = graph.layers
    assert first.macs == 8 * 8 * 8 * 3 * 9 and second.macs == 8 * 8 * 12 * 8 * 9 and head.macs == 60
    assert (first.in_units == -1).all() and first.out_units.tolist() == second.in_units.tolist() == list(range(8))
    assert (head.out_units == -1).all() and graph.batch == 2 and graph.units == 20
    assert graph.reading_dims == (-3, -3, -1) and graph.shapes["second.weight"] == (12, 8, 3, 3)


def test_a_sample_folded_with_others_counts_once() -> None:
    class Folded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(3, 6), nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.two(self.one(x).flatten(0, 1))
            return y

    graph = trace(Folded(), (torch.randn(2, 7, 3),))
    assert [layer.macs for layer in graph.layers] == [7 * 18, 7 * 24]


def test_sites_are_found_by_name() -> None:
    graph = trace(Net(), PICTURES)
    with pytest.raises(PlanError, match=r"There is no site 'secnd'. Did you mean 'second'"):
        graph.site("secnd")
    assert [(i, layer.name) for i, layer in graph.layers_reading(graph.site("first"))] == [(1, "second")]


def test_pinning_a_site_counts_its_channels_and_not_its_units() -> None:
    graph = hostile("grouped_4").graph
    site = graph.site("grouped.0")
    assert site.size == 9
    pinned = graph.without_sites([site.name], "must stay", {site.name: "net.py:3"})
    assert pinned.free == graph.free - 36 and pinned.notes[-1].units == 36 and pinned.notes[-1].line == "net.py:3"
    assert site.name not in [s.name for s in pinned.sites]


# ------------------------------------------------------------------------------------------------------ what is refused


def test_control_flow_on_values_is_refused_in_a_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    def branch(x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x  # decides

    with pytest.raises(TraceError, match=r"^Net cannot be traced at test_trace.py:\d+: forward decides by the values"):
        trace(Net(branch), PICTURES)
    assert capfd.readouterr() == ("", "")


def test_reading_a_value_as_a_number_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TraceError, match="reads one as a Python number"):
        trace(Net(lambda x: x * float(x.abs().max())), PICTURES)
    assert capfd.readouterr() == ("", "")


def test_failing_forward_is_told_with_its_line_and_no_traceback() -> None:
    with pytest.raises(TraceError, match=r"Net cannot be traced at test_trace.py:\d+: .*Given groups=1") as caught:
        trace(Net(), (torch.randn(2, 4, 8, 8),))
    assert "Forward must run in eval mode on the example input." in str(caught.value)
    assert caught.value.__suppress_context__ and "\n" not in str(caught.value)


def test_a_tensor_that_leaves_no_trace_is_refused() -> None:
    with pytest.raises(TraceError, match=r"traced at test_trace.py:\d+: a tensor gets there by .*; use .detach"):
        trace(Net(lambda x: F.relu(x.data)), PICTURES)


def test_a_size_that_depends_on_values_is_refused() -> None:
    with pytest.raises(TraceError, match=r"test_trace.py:\d+: index makes a tensor whose size depends on the values"):
        trace(Net(lambda x: x[x.sum((1, 2, 3)) > 0]), PICTURES)


def test_an_output_whose_tensors_nobody_finds_is_refused() -> None:
    class Wrapped(Net):
        def forward(self, x: Tensor) -> Any:
            return types.SimpleNamespace(logits=super().forward(x))

    with pytest.raises(TraceError, match=r"forward returns an object of type SimpleNamespace; return tensors, alone"):
        trace(Wrapped(), PICTURES)


def test_a_failing_trace_restores_modes() -> None:
    net = Net(lambda x: x.no_such_method())
    net.train()
    net.second.eval()
    with pytest.raises(TraceError):
        trace(net, PICTURES)
    assert net.training and net.first.training and not net.second.training


def test_uncopyable_model_is_refused_by_name() -> None:
    net = Net()
    net.__dict__["lock"] = threading.Lock()
    with pytest.raises(TraceError, match=r"Net cannot be copied: cannot pickle '_thread.lock' object. Keep such state"):
        plain(net)


# ------------------------------------------------------------------------------------------------------ what is kept


def test_trace_changes_nothing() -> None:
    net = HOSTILE["residual"].build()
    net.train()
    before = copy.deepcopy(net.state_dict())
    trace(net, *HOSTILE["residual"].inputs())
    assert net.training and all(torch.equal(t, before[name]) for name, t in net.state_dict().items())


class Counter(nn.Module):
    """Counts its calls in a buffer, as moving averages and lazy caches do."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.conv, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        y: Tensor = self.head(self.conv(x))
        return y


def test_a_buffer_that_forward_writes_stays_as_it_is() -> None:
    net = Counter()
    graph = trace(net, PICTURES)
    assert float(net.calls) == 0 and graph.share_free == 1
    kept = half(graph, 0)
    small = copy.deepcopy(net)
    cut(small, graph, kept)
    assert prove(graph, net, small, kept).ok and float(net.calls) == 0


def test_what_forward_stores_in_the_module_is_not_left_there() -> None:
    class Storing(Net):
        def forward(self, x: Tensor) -> Tensor:
            self.seen = [*getattr(self, "seen", []), x.mean()]
            return super().forward(x)

    net = Storing()
    assert capture(net.eval(), PICTURES, {}) and not hasattr(net, "seen")
    assert trace(net, PICTURES).share_free == 1


def test_plain_folds_parametrizations_and_older_hooks_and_leaves_the_original() -> None:
    net = Net()
    parametrizations.weight_norm(net.first)
    parametrizations.spectral_norm(net.second)
    prune.l1_unstructured(net.head, "weight", amount=0.5)
    net.head.weight = net.head.weight.detach()
    net.eval()
    folded = plain(net)
    assert [name for name, _ in folded.named_parameters()] == [
        "first.bias", "first.weight", "second.bias", "second.weight", "head.bias", "head.weight",
    ]  # fmt: skip
    assert not list(folded.named_buffers()) and not folded.get_submodule("head")._forward_pre_hooks
    assert all(
        torch.allclose(a, b) for a, b in zip(outputs(net, (PICTURES, {})), outputs(folded, (PICTURES, {})), strict=True)
    )
    assert isinstance(net.first.parametrizations, nn.ModuleDict) and net.head._forward_pre_hooks
    assert trace(folded, PICTURES).share_free == 1


# ---------------------------------------------------------------------------------------- forwards that users write


def with_grad(x: Tensor) -> Tensor:
    with torch.enable_grad():
        return F.relu(x)


def with_autocast(x: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        return F.relu(x) * 2


def with_half_precision(x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return (x @ torch.eye(8)).float()


@pytest.mark.parametrize("region", [with_grad, with_autocast, with_half_precision])
def test_with_blocks_are_looked_into(region: Any) -> None:
    graph = trace(Net(region), PICTURES)
    assert graph.share_free == 1 and not graph.notes


def test_a_division_by_the_width_is_found_by_the_proof_alone() -> None:
    scaled = Net(lambda x: x / x.shape[1])
    assert trace(scaled, PICTURES, proof=False).share_free == 1
    (note,) = trace(scaled, PICTURES).notes
    assert (
        note.where == "first" and note.units == 8 and note.why.startswith("could not be proved: the cut model differs")
    )


def test_a_cut_that_raises_is_pinned_with_the_users_line() -> None:
    def compare(x: Tensor) -> Tensor:
        if x.shape[1] != 8:
            raise ValueError("eight channels, please")
        return x

    (note,) = trace(Net(compare), PICTURES).notes
    assert note.why == "could not be proved: the cut model fails with ValueError: eight channels, please"
    assert note.line.startswith("test_trace.py:")


def test_without_proof_guesses_are_settled_all_the_same() -> None:
    case = HOSTILE["flatten_view_literal"]
    graph = trace(plain(case.build()), *case.inputs(), proof=False)
    assert [note.why for note in graph.notes] == ["passes a size written as a constant"]


def test_without_proof_and_guesses_nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: Any) -> Any:
        raise AssertionError("a proof was run")

    monkeypatch.setattr(sys.modules["penjing.graph.trace"], "try_out", forbidden)
    assert trace(Net(), PICTURES, proof=False).share_free == 1


def test_one_wrong_guess_does_not_cost_its_neighbours() -> None:
    """Two shuffles on one line of one function: sizes that cannot be told apart are read one by one."""

    def shuffle(x: Tensor, groups: int) -> Tensor:
        n, c, h, w = x.shape
        return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.last = nn.Conv2d(3, 12, 1), nn.Conv2d(12, 12, 1), nn.Conv2d(12, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.last(shuffle(self.two(shuffle(self.one(x), 6)), 2))
            return y

    graph = trace(Twice(), PICTURES)
    assert not graph.notes and {site.name: site.size for site in graph.sites} == {"one": 2, "two": 6}


def test_numbers_that_normal_input_drives_out_of_range_are_drawn_from_the_example() -> None:
    class Logs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.head(F.relu(self.conv(x.log())))
            return y

    positive = (PICTURES[0].abs() + 0.1,)
    assert trace(Logs(), positive).share_free == 1


def test_double_and_half_precision_are_proved() -> None:
    for dtype in (torch.float64, torch.bfloat16):
        net = Net().to(dtype)
        graph = trace(net, (PICTURES[0].to(dtype),))
        assert graph.share_free == 1
        kept = half(graph, 0)
        small = copy.deepcopy(net)
        cut(small, graph, kept)
        certificate = prove(graph, net, small, kept)
        assert certificate.ok and certificate.tolerance == (1e-10 if dtype is torch.float64 else 1e-5)
        assert next(small.parameters()).dtype is dtype


def test_a_random_forward_is_told_as_such() -> None:
    graph = trace(Net(lambda x: x + torch.rand_like(x)), PICTURES)
    assert not graph.sites and {note.units for note in graph.notes} == {8, 12}
    assert {note.why for note in graph.notes} == {
        "could not be proved: forward gives another result when it runs again, with nothing cut"
    }


def test_infinite_channels_that_go_do_no_harm() -> None:
    net = Net()
    with torch.no_grad():
        net.get_parameter("first.bias")[3] = float("inf")
    graph = trace(net, PICTURES, proof=False)
    kept = {"first": np.array([0, 1, 2, 4, 5, 6, 7])}
    small = copy.deepcopy(net)
    cut(small, graph, kept)
    assert prove(graph, net, small, kept).ok
