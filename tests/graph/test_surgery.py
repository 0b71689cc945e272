from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nets.hostile import HOSTILE
from penjing.core.errors import PlanError
from penjing.core.units import Kept
from penjing.graph.program import shell
from penjing.graph.surgery import cut
from penjing.graph.trace import trace

from .checks import hostile, untrue


def cut_copy(name: str, kept: dict[str, Kept]) -> tuple[nn.Module, nn.Module]:
    net = hostile(name)
    return net.model, net.small(kept)


def at(*units: int) -> Kept:
    return np.array(units)


def test_every_tensor_keeps_exactly_the_units_that_stay() -> None:
    before, after = cut_copy("plain_chain", {"body.0.0": at(0, 3, 7)})
    old, new = before.state_dict(), after.state_dict()
    kept = [0, 3, 7]
    for name, tensor in old.items():
        if name in ("body.0.0.weight", *(f"body.0.1.{n}" for n in ("weight", "bias", "running_mean", "running_var"))):
            tensor = tensor[kept]
        elif name == "body.1.0.weight":
            tensor = tensor[:, kept]
        assert torch.equal(new[name], tensor), name


def test_flattened_channels_lose_all_their_features() -> None:
    before, after = cut_copy("flatten_channels_last", {"body.2.0": at(1, 4)})
    columns = [position * 10 + channel for position in range(16) for channel in (1, 4)]
    assert torch.equal(after.get_parameter("fc1.weight"), before.get_parameter("fc1.weight")[:, columns])


def test_concat_is_cut_at_the_offset_of_its_branch() -> None:
    before, after = cut_copy("independent_branches_concat", {"right.0": at(0, 13)})
    old, new = before.get_parameter("join.0.weight"), after.get_parameter("join.0.weight")
    assert torch.equal(new, old[:, [*range(10), 10, 23]])


def test_group_counts_follow_or_stay() -> None:
    _, after = cut_copy("depthwise_multiplier_2", {"stem.0": at(2, 5, 11)})
    conv = after.get_submodule("depthwise.0")
    assert isinstance(conv, nn.Conv2d)
    assert (conv.in_channels, conv.out_channels, conv.groups, tuple(conv.weight.shape)) == (3, 6, 3, (6, 1, 3, 3))
    before, after = cut_copy("grouped_4", {"stem.0": at(0, 5)})
    conv, old = after.get_submodule("grouped.0"), before.get_parameter("grouped.0.weight")
    assert isinstance(conv, nn.Conv2d)
    assert (conv.in_channels, conv.out_channels, conv.groups) == (8, 36, 4)
    assert torch.equal(conv.weight, old[:, [0, 5]])


def test_groups_may_lose_different_channels() -> None:
    """Behind a shuffle of three, eight channels in a group are those of two and two thirds of the shuffle's columns."""
    net = hostile("shuffle_module")
    (axis,) = [axis for axis in net.graph.axes if axis.groups > 1]
    assert (axis.tensor, axis.axis, axis.groups) == ("grouped.0.weight", 1, 3)
    site = net.graph.site("stem.0")
    small = net.small({"stem.0": at(1)})
    gone = (axis.units == site.ids[0]).reshape(3, 8)
    assert len({tuple(row) for row in gone.tolist()}) > 1 and set(gone.sum(1).tolist()) == {3}
    old, new = net.model.get_parameter("grouped.0.weight"), small.get_parameter("grouped.0.weight")
    rows = [old[8 * g : 8 * g + 8][:, torch.from_numpy(~gone[g])] for g in range(3)]
    assert torch.equal(new, torch.cat(rows)) and untrue(small) == []


def test_group_norm_loses_whole_groups() -> None:
    _, after = cut_copy("group_norm_8", {"conv1": at(1, 6)})
    norm = after.get_submodule("norm1")
    assert isinstance(norm, nn.GroupNorm) and (norm.num_channels, norm.num_groups) == (8, 2)


def test_index_buffer_is_renumbered() -> None:
    net = hostile("shuffle_by_index_buffer")
    site = next(s for s in net.graph.sites if any(slot.tensor == "order" for slot in s.slots))
    small = net.small({site.name: np.arange(1, site.size)})
    order = small.order
    assert isinstance(order, Tensor) and sorted(order.tolist()) == list(range(len(order))) and len(order) < 16


def test_shared_tensors_stay_shared() -> None:
    net = hostile("same_convolution_twice")
    small = net.small({"left.0": np.arange(5)})
    assert small.shared is small.alias
    net = hostile("same_parameter_in_two_modules")
    small = net.small({net.graph.sites[0].name: np.arange(5)})
    one, two = small.get_submodule("conv1"), small.get_submodule("conv2")
    assert one.weight is two.weight and untrue(small) == []
    assert isinstance(two, nn.Conv2d) and (two.in_channels, two.out_channels) == (5, 5)


def test_parameters_keep_whether_they_want_gradients() -> None:
    net = hostile("plain_chain")
    frozen = copy.deepcopy(net.model)
    frozen.get_parameter("body.0.0.weight").requires_grad_(False)
    cut(frozen, net.graph, {"body.0.0": at(0)})
    wants = {name: p.requires_grad for name, p in frozen.named_parameters()}
    assert not wants.pop("body.0.0.weight") and all(wants.values())
    assert all(isinstance(p, nn.Parameter) for p in frozen.parameters())


def test_channels_last_stays_channels_last() -> None:
    net = hostile("plain_chain")
    model = copy.deepcopy(net.model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    cut(model, net.graph, {"body.1.0": np.arange(7)})
    weight = model.get_submodule("body.1.0").weight
    assert isinstance(weight, Tensor) and weight.is_contiguous(memory_format=torch.channels_last)


def test_computed_kernels_leave_true_attributes() -> None:
    """The module's own weight is an ingredient of the kernel, and the graph's layer has no weight of its own."""
    net = hostile("weight_standardisation")
    small = net.small({site.name: np.arange(4) for site in net.graph.sites})
    assert untrue(small) == []
    conv2 = small.get_submodule("conv2")
    assert isinstance(conv2, nn.Conv2d) and conv2.out_channels == 4


def test_norms_without_tensors_are_told() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)
            self.norm = nn.InstanceNorm2d(8)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.last(self.norm(self.conv(x)))
            return y

    net = Bare()
    cut(net, trace(net, (torch.randn(2, 3, 4, 4),)), {"conv": at(0, 1, 2)})
    assert net.norm.num_features == 3


def test_another_model_is_refused() -> None:
    graph = hostile("plain_chain").graph
    with pytest.raises(
        PlanError, match=r"The model has no tensor 'body.0.0.weight'; trace the model that is to be cut"
    ):
        cut(HOSTILE["residual"].build(), graph, {"body.0.0": at(0)})


def test_a_second_cut_is_refused_before_anything_is_lost() -> None:
    net = hostile("plain_chain")
    small = net.small({"body.0.0": at(0, 1)})
    before = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    with pytest.raises(PlanError, match=r"has 2 entries on axis 0, 12 were traced; trace the model again"):
        cut(small, net.graph, {"body.0.0": at(0, 1, 2), "body.1.0": at(0)})
    assert all(torch.equal(tensor, before[name]) for name, tensor in small.state_dict().items())


def test_unknown_site_is_refused() -> None:
    net = hostile("plain_chain")
    with pytest.raises(PlanError, match=r"There is no site 'body.0.1'. Did you mean 'body.0.0'"):
        net.small({"body.0.1": at(0)})


def test_shell_shares_parameters_and_owns_buffers() -> None:
    model = hostile("plain_chain").model
    twin = shell(model)
    assert all(a is b for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    assert not any(a is b for a, b in zip(model.buffers(), twin.buffers(), strict=True))
    assert not any(a is b for a, b in zip(model.modules(), twin.modules(), strict=True))
