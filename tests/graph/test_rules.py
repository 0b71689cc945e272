"""Rules alone, on labels small enough to follow by hand; and, at the end, what users see of them."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penjing.core.units import Ints
from penjing.factors.layer import Pick
from penjing.graph.labels import Labels, Tagged
from penjing.graph.rules import concat, layers, norms, pointwise, shape  # noqa: F401  (filling the table)
from penjing.graph.rules.layers import Roles, einsum_roles
from penjing.graph.rules.table import RULES, Around, Call, Findings
from penjing.graph.trace import trace


class Bench:
    """Runs one rule and looks into the books."""

    def __init__(self, owner: nn.Module | None = None, buffers: dict[str, Tensor] | None = None) -> None:
        self.labels, self.findings = Labels(), Findings()
        modules = {} if owner is None else {"owner": owner}
        self.around = Around(modules, {"w", "v"}, buffers or {}, set(), batch=2)

    def make(self, shape: tuple[int, ...], *dims: int) -> Tagged:
        """A tensor with fresh labels along these dimensions."""
        return Tagged(shape, tuple(self.labels.fresh(n) if d in dims else None for d, n in enumerate(shape)))

    def parameter(self, shape: tuple[int, ...], name: str = "w") -> Tagged:
        return Tagged(shape, (None,) * len(shape), name)

    def run(self, name: str, /, *shapes: tuple[int, ...], level: int = 0, **args: Any) -> Any:
        call = Call(
            name=name, node="node", args=args, shapes=list(shapes), module="owner", line="net.py:7", level=level,
            live=True, labels=self.labels, findings=self.findings, around=self.around,
        )  # fmt: skip
        return RULES[name](call)

    def classes(self, labels: Ints | None) -> list[int]:
        """The classes of labels, numbered in order of appearance."""
        assert labels is not None
        found = self.labels.classes()[labels].tolist()
        order = list(dict.fromkeys(found))
        return [order.index(c) for c in found]

    def pinned(self, labels: Ints | None) -> list[int]:
        """The positions of labels that must stay."""
        assert labels is not None
        number, _ = self.labels.reasons(self.labels.classes())
        return np.flatnonzero(number[self.labels.classes()[labels]] >= 0).tolist()

    def why(self, labels: Ints | None) -> list[str]:
        assert labels is not None
        classes = self.labels.classes()
        number, reasons = self.labels.reasons(classes)
        return [reasons[i].why for i in dict.fromkeys(number[classes[labels]].tolist()) if i >= 0]

    @property
    def constants(self) -> list[bool]:
        return [reason.fixed_by_code for reason in self.labels.reasons(self.labels.classes())[1]]


def ties(bench: Bench, labels: Ints | None) -> list[list[int]]:
    """The positions of labels that go together, as groups of more than one."""
    classes = np.array(bench.classes(labels))
    groups = [np.flatnonzero(classes == c).tolist() for c in dict.fromkeys(classes.tolist())]
    return [group for group in groups if len(group) > 1]


# ------------------------------------------------------------------------------------------------------- reshaping


def test_flatten_repeats_channels_over_the_positions_behind_them() -> None:
    b = Bench()
    x = b.make((2, 3, 2, 2), 1)
    y = b.run("flatten", (2, 12), self=x)
    assert y.dims[1].tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2] and not b.findings.assumptions


def test_flatten_channels_last_repeats_the_whole_row() -> None:
    b = Bench()
    x = b.make((2, 2, 2, 3), 3)
    assert b.run("flatten", (2, 12), self=x).dims[1].tolist() == [0, 1, 2] * 4


def test_view_back_finds_the_channels_again_without_a_guess() -> None:
    b = Bench()
    x = b.make((2, 3, 4), 1)
    flat = b.run("flatten", (2, 12), self=x)
    y = b.run("view", (2, 3, 4), self=flat, size=[2, -1, 4])
    assert y.dims[1].tolist() == [0, 1, 2] and y.dims[2] is None and not b.findings.assumptions


def test_view_with_an_inferred_size_puts_the_channels_there() -> None:
    b = Bench()
    y = b.run("view", (2, 2, 3), self=b.make((2, 6), 1), size=[2, -1, 3])
    assert ties(b, np.arange(6)) == [[0, 1, 2], [3, 4, 5]]
    assert b.classes(y.dims[1]) == [0, 1] and y.dims[2] is None


@pytest.mark.parametrize(
    ("level", "carrier", "groups"),
    [(0, 2, [[0, 3], [1, 4], [2, 5]]), (1, 1, [[0, 1, 2], [3, 4, 5]])],
)
def test_view_with_written_sizes_takes_the_largest_part_first(
    level: int, carrier: int, groups: list[list[int]]
) -> None:
    b = Bench()
    y = b.run("view", (2, 2, 3), self=b.make((2, 6), 1), size=[2, 2, 3], level=level)
    assert y.dims[carrier] is not None and ties(b, np.arange(6)) == groups
    assert [a.node for a in b.findings.assumptions] == ["node"] and not b.pinned(np.arange(6))


def test_view_with_written_sizes_gives_up_in_the_end() -> None:
    b = Bench()
    y = b.run("view", (2, 2, 3), self=b.make((2, 6), 1), size=[2, 2, 3], level=2)
    assert y.dims == (None, None, None) and b.pinned(np.arange(6)) == [0, 1, 2, 3, 4, 5]
    assert b.why(np.arange(6)) == ["passes a size written as a constant"] and b.constants == [True]


def test_view_prefers_the_later_of_two_equal_parts() -> None:
    b = Bench()
    y = b.run("view", (2, 3, 3), self=b.make((2, 9), 1), size=[2, 3, 3])
    assert y.dims[1] is None and b.classes(y.dims[2]) == [0, 1, 2]
    assert ties(b, np.arange(9)) == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]


def test_view_that_drops_a_size_of_one_keeps_the_labels() -> None:
    b = Bench()
    y = b.run("view", (2, 5), self=b.make((2, 5, 1, 1), 1), size=[-1, 5])
    assert y.dims[1].tolist() == [0, 1, 2, 3, 4] and len(b.findings.assumptions) == 1
    assert b.run("view", (2, 5), self=b.make((2, 5, 1, 1), 1), size=[-1, 5], level=1).dims[1] is None


def test_view_pins_a_second_labelled_dimension_that_it_merges() -> None:
    b = Bench()
    x = b.make((2, 3, 4), 1, 2)
    y = b.run("flatten", (2, 12), self=x)
    assert b.pinned(x.dims[1]) == [0, 1, 2] and not b.pinned(x.dims[2])
    assert x.dims[2] is not None and y.dims[1].tolist() == x.dims[2].tolist() * 3


def test_blocks_pair_runs_of_equal_product() -> None:
    assert shape._blocks((2, 6, 4), (2, 2, 3, 4)) == [([0], [0]), ([1], [1, 2]), ([2], [3])]
    assert shape._blocks((2, 3, 4, 5), (6, 20)) == [([0, 1], [0]), ([2, 3], [1])]
    assert shape._blocks((4,), (4, 1)) == [([0], [0]), ([], [1])]


def test_permute_and_its_kin_move_labels() -> None:
    b = Bench()
    x = b.make((2, 3, 4, 5), 1)
    assert b.run("permute", (2, 4, 5, 3), self=x, dims=[0, 2, 3, 1]).dims[3] is x.dims[1]
    assert b.run("transpose", (2, 4, 3, 5), self=x, dim0=1, dim1=-2).dims[2] is x.dims[1]
    assert b.run("movedim", (2, 4, 5, 3), self=x, source=1, destination=-1).dims[3] is x.dims[1]
    assert b.run("unsqueeze", (2, 1, 3, 4, 5), self=x, dim=1).dims[2] is x.dims[1]
    flat = b.make((2, 3, 1, 1), 1)
    assert b.run("squeeze", (2, 3), self=flat).dims[1] is flat.dims[1]
    assert b.run("squeeze", (2, 3, 1), self=flat, dim=-1).dims[1] is flat.dims[1]


# ------------------------------------------------------------------------------------------------ slices and splits


def test_slice_of_a_half_ties_the_halves_until_proved_wrong() -> None:
    b = Bench()
    x = b.make((2, 6), 1)
    y = b.run("slice", (2, 3), self=x, dim=1, start=0, end=3)
    assert y.dims[1].tolist() == [0, 1, 2] and ties(b, x.dims[1]) == [[0, 3], [1, 4], [2, 5]]
    assert len(b.findings.assumptions) == 1


@pytest.mark.parametrize(
    ("start", "end", "pinned"),
    [(0, 4, [0, 1, 2, 3]), (2, 2**63 - 1, [0, 1]), (2, 4, [0, 1, 2, 3]), (0, -2, [4, 5]), (-2, 2**63 - 1, [4, 5])],
)
def test_slice_at_a_constant_pins_what_it_counts_from(start: int, end: int, pinned: list[int]) -> None:
    b = Bench()
    x = b.make((2, 6), 1)
    left = list(range(6))[start:end]
    y = b.run("slice", (2, len(left)), self=x, dim=1, start=start, end=end, level=1)
    assert y.dims[1].tolist() == left and b.pinned(x.dims[1]) == pinned
    assert set(b.why(x.dims[1])) == {"is cut off at a constant channel number"} and all(b.constants)


def test_slice_that_no_common_piece_fits_pins_at_once() -> None:
    b = Bench()
    x = b.make((2, 7), 1)
    b.run("slice", (2, 3), self=x, dim=1, start=0, end=3)
    assert b.pinned(x.dims[1]) == [0, 1, 2] and not b.findings.assumptions


def test_slice_of_everything_and_of_space_changes_nothing() -> None:
    b = Bench()
    x = b.make((2, 6, 8), 1)
    assert b.run("slice", (2, 6, 8), self=x, dim=1, start=0, end=2**63 - 1).dims[1] is x.dims[1]
    assert b.run("slice", (2, 6, 4), self=x, dim=2, start=0, end=4).dims[1] is x.dims[1]
    assert not b.pinned(x.dims[1]) and not ties(b, x.dims[1])


def test_slice_with_a_stride_ties_neighbours() -> None:
    b = Bench()
    x = b.make((2, 6), 1)
    for start in (0, 1):
        y = b.run("slice", (2, 3), self=x, dim=1, start=start, end=6, step=2)
        assert ties(b, x.dims[1]) == [[0, 1], [2, 3], [4, 5]] and b.classes(y.dims[1]) == [0, 1, 2]


def test_slice_with_a_stride_that_does_not_divide_pins() -> None:
    b = Bench()
    x = b.make((2, 7), 1)
    y = b.run("slice", (2, 4), self=x, dim=1, start=0, end=7, step=2)
    assert y.dims[1] is None and b.pinned(x.dims[1]) == list(range(7))


def test_chunk_ties_equal_offsets() -> None:
    b = Bench()
    x = b.make((2, 6), 1)
    parts = b.run("chunk", *[(2, 2)] * 3, self=x, chunks=3, dim=1)
    assert [p.dims[1].tolist() for p in parts] == [[0, 1], [2, 3], [4, 5]]
    assert ties(b, x.dims[1]) == [[0, 2, 4], [1, 3, 5]] and not b.findings.assumptions


@pytest.mark.parametrize(
    ("sizes", "odd", "groups"),
    [([3, 3, 2], [2, 5], [[0, 3, 6], [1, 4, 7]]), ([3, 2, 2], [2], [[0, 3, 5], [1, 4, 6]])],
)
def test_uneven_pieces_keep_only_the_odd_channels(sizes: list[int], odd: list[int], groups: list[list[int]]) -> None:
    b = Bench()
    x = b.make((2, sum(sizes)), 1)
    b.run("chunk", *[(2, n) for n in sizes], self=x, chunks=3, dim=1)
    assert b.pinned(x.dims[1]) == odd and ties(b, x.dims[1])[: len(groups)] == groups and all(b.constants)


@pytest.mark.parametrize("count", range(2, 30))
@pytest.mark.parametrize("pieces", [2, 3, 4, 5])
@pytest.mark.parametrize("cut", [torch.chunk, torch.tensor_split])
def test_uneven_pieces_really_shrink_alike(count: int, pieces: int, cut: Any) -> None:
    """Brute force: removing one offset from every piece leaves the borders where the rule says."""
    sizes = [len(p) for p in cut(torch.arange(count), pieces) if len(p)]
    if len(sizes) < 2 or min(sizes) < 2:
        return
    left = torch.cat([p[1:] for p in cut(torch.arange(count), pieces) if len(p)])
    assert [len(p) for p in cut(left, pieces) if len(p)] == [n - 1 for n in sizes]


def test_split_at_written_sizes_ties_and_then_pins_all_but_what_follows() -> None:
    b = Bench()
    x = b.make((2, 8), 1)
    b.run("split_with_sizes", (2, 2), (2, 6), self=x, split_sizes=[2, 6], dim=1)
    assert ties(b, x.dims[1]) == [[0, 2, 4, 6], [1, 3, 5, 7]] and len(b.findings.assumptions) == 1
    b = Bench()
    x = b.make((2, 8), 1)
    b.run("split_with_sizes", (2, 2), (2, 6), self=x, split_sizes=[2, 6], dim=1, level=1)
    assert b.pinned(x.dims[1]) == list(range(8))
    b = Bench()
    x = b.make((2, 8), 1)
    b.run("split", (2, 3), (2, 3), (2, 2), self=x, split_size=3, dim=1, level=1)
    assert b.pinned(x.dims[1]) == [0, 1, 2, 3, 4, 5]


def test_split_at_indices_is_a_guess_like_any_written_number() -> None:
    b = Bench()
    x = b.make((2, 8), 1)
    b.run("tensor_split", (2, 4), (2, 4), self=x, indices=[4], dim=1)
    assert len(b.findings.assumptions) == 1


def test_select_pins_the_dimension_it_picks_from() -> None:
    b = Bench()
    x = b.make((2, 3, 4), 1)
    b.run("select", (2, 4), self=x, dim=1, index=0)
    assert b.pinned(x.dims[1]) == [0, 1, 2] and b.constants == [True]


# ------------------------------------------------------------------------------------------- joining and repeating


def test_cat_joins_labels_and_fixes_parts_without() -> None:
    b = Bench()
    x, y = b.make((2, 3, 4), 1), b.make((2, 2, 4), 1)
    z = b.run("cat", (2, 6, 4), tensors=[x, Tagged.plain((2, 1, 4)), y], dim=1)
    assert z.dims[1].tolist()[:3] == [0, 1, 2] and z.dims[1].tolist()[4:] == [3, 4] and b.pinned(z.dims[1]) == [3]


def test_cat_along_space_ties_channels() -> None:
    b = Bench()
    x, y = b.make((2, 3, 4), 1), b.make((2, 3, 1), 1)
    z = b.run("cat", (2, 3, 5), tensors=[x, y], dim=-1)
    assert ties(b, np.arange(6)) == [[0, 3], [1, 4], [2, 5]] and z.dims[1] is x.dims[1]


def test_stack_repeat_flip_and_roll() -> None:
    b = Bench()
    x, y = b.make((2, 3), 1), b.make((2, 3), 1)
    z = b.run("stack", (2, 2, 3), tensors=[x, y], dim=1)
    assert z.dims[1] is None and ties(b, np.arange(6)) == [[0, 3], [1, 4], [2, 5]]
    assert b.run("repeat", (2, 6), self=x, repeats=[1, 2]).dims[1].tolist() == [0, 1, 2, 0, 1, 2]
    assert b.run("repeat_interleave", (2, 6), self=x, repeats=2, dim=1).dims[1].tolist() == [0, 0, 1, 1, 2, 2]
    assert b.run("flip", (2, 3), self=x, dims=[1]).dims[1].tolist() == [2, 1, 0]
    b.run("roll", (2, 3), self=x, shifts=[1], dims=[1])
    assert b.pinned(x.dims[1]) == [0, 1, 2]


def test_expand_keeps_sizes_it_does_not_name_and_pins_broadcast_channels() -> None:
    b = Bench()
    x = b.make((1, 3, 1), 1)
    assert b.run("expand", (2, 3, 4), self=x, size=[2, -1, 4]).dims[1] is x.dims[1] and not b.findings.assumptions
    assert b.run("expand", (2, 3, 4), self=x, size=[2, 3, 4]).dims[1] is x.dims[1] and len(b.findings.assumptions) == 1
    one = b.make((2, 1, 4), 1)
    assert b.run("expand", (2, 5, 4), self=one, size=[2, 5, 4]).dims[1] is None
    assert b.why(one.dims[1]) == ["is one channel that is broadcast over many"]


def test_pad_of_channels_adds_fixed_ones() -> None:
    b = Bench()
    x = b.make((2, 3, 4), 1)
    y = b.run("pad", (2, 6, 4), self=x, pad=[0, 0, 1, 2])
    assert y.dims[1].tolist()[1:4] == [0, 1, 2] and b.pinned(y.dims[1]) == [0, 4, 5]
    assert set(b.why(y.dims[1])) == {"is zero-padded by a constant number of channels"} and all(b.constants)


def test_pad_of_space_and_crop_and_reflection_of_channels() -> None:
    b = Bench()
    x = b.make((2, 3, 4), 1)
    assert b.run("pad", (2, 3, 6), self=x, pad=[1, 1]).dims[1] is not None and not b.pinned(x.dims[1])
    assert b.run("pad", (2, 2, 4), self=x, pad=[0, 0, -1, 0]).dims[1].tolist() == [1, 2]
    assert b.pinned(x.dims[1]) == [0, 1, 2]
    b = Bench()
    x = b.make((2, 3, 4), 1)
    assert b.run("pad", (2, 5, 4), self=x, pad=[0, 0, 1, 1], mode="reflect").dims[1] is None
    assert b.pinned(x.dims[1]) == [0, 1, 2]


def test_pixel_shuffle_ties_the_channels_of_a_place() -> None:
    b = Bench()
    x = b.make((2, 8, 3, 3), 1)
    y = b.run("pixel_shuffle", (2, 2, 6, 6), self=x, upscale_factor=2)
    assert ties(b, x.dims[1]) == [[0, 1, 2, 3], [4, 5, 6, 7]] and b.classes(y.dims[1]) == [0, 1]
    small = b.make((2, 2, 4, 4), 1)
    assert b.run("pixel_unshuffle", (2, 8, 2, 2), self=small, downscale_factor=2).dims[1].tolist() == [8] * 4 + [9] * 4


def test_channel_shuffle_deals_out() -> None:
    b = Bench()
    x = b.make((2, 6, 3, 3), 1)
    y = b.run("channel_shuffle", (2, 6, 3, 3), self=x, groups=2)
    assert y.dims[1].tolist() == [0, 3, 1, 4, 2, 5] and ties(b, x.dims[1]) == [[0, 3], [1, 4], [2, 5]]
    order = torch.arange(6).view(1, 6, 1, 1).float()
    assert F.channel_shuffle(order, 2).flatten().tolist() == y.dims[1].tolist()


# --------------------------------------------------------------------------------------------------- index buffers


def test_index_buffer_moves_labels_and_is_renumbered() -> None:
    b = Bench(buffers={"order": torch.tensor([2, 0, 1])})
    x, order = b.make((2, 3), 1), b.parameter((3,), "order")
    y = b.run("index_select", (2, 3), self=x, dim=1, index=order)
    assert y.dims[1].tolist() == [2, 0, 1] and b.labels.axes["order", 0].tolist() == [2, 0, 1]
    assert [(g.buffer, g.source.tolist()) for g in b.findings.gathers] == [("order", [0, 1, 2])]


def test_a_pick_says_how_many_channels_it_reads() -> None:
    b = Bench(Pick(torch.tensor([2, 0]), 3), buffers={"owner.index": torch.tensor([2, 0])})
    x = b.make((2, 3), 1)
    b.run("index_select", (2, 2), self=x, dim=1, index=b.parameter((2,), "owner.index"))
    (count,) = b.findings.counts
    assert (count.module, count.attribute, count.labels.tolist(), count.times) == ("owner", "channels", [0, 1, 2], 1)


def test_index_buffer_used_twice_is_renumbered_once_and_ties_its_sources() -> None:
    b = Bench(buffers={"order": torch.tensor([2, 0, 1])})
    x, z, order = b.make((2, 3), 1), b.make((2, 3), 1), b.parameter((3,), "order")
    b.run("index_select", (2, 3), self=x, dim=1, index=order)
    b.run("index", (2, 3), self=z, indices=[None, order])
    assert len(b.findings.gathers) == 1 and ties(b, np.arange(6)) == [[0, 3], [1, 4], [2, 5]]
    wide = b.make((2, 4), 1)
    b.run("index_select", (2, 3), self=wide, dim=1, index=order)
    assert b.pinned(wide.dims[1]) == [0, 1, 2, 3] and b.pinned(x.dims[1]) == [0, 1, 2]


def test_index_that_is_no_buffer_pins() -> None:
    b = Bench()
    x = b.make((2, 3), 1)
    y = b.run("index_select", (2, 2), self=x, dim=1, index=Tagged.plain((2,)))
    assert y.dims[1] is None and b.pinned(x.dims[1]) == [0, 1, 2]


# ------------------------------------------------------------------------------------------------------- arithmetic


def test_addition_ties_operands_position_by_position() -> None:
    b = Bench()
    x, y = b.make((2, 3, 4), 1), b.make((3, 1), 0)
    z = pointwise.elementwise(_call(b, "add", (2, 3, 4), self=x, other=y))
    assert isinstance(z, Tagged) and z.dims[1] is x.dims[1] and ties(b, np.arange(6)) == [[0, 3], [1, 4], [2, 5]]


def test_addition_with_an_input_and_a_broadcast_channel_pins() -> None:
    b = Bench()
    x = b.make((2, 3, 4), 1)
    pointwise.elementwise(_call(b, "add", (2, 3, 4), self=x, other=Tagged.plain((2, 3, 4))))
    assert b.why(x.dims[1]) == ["meets a tensor whose size cannot change"]
    one = b.make((2, 1, 4), 1)
    pointwise.elementwise(_call(b, "mul", (2, 3, 4), self=b.make((2, 3, 4), 1), other=one))
    assert b.why(one.dims[1]) == ["is one channel that is broadcast over many"]


def _call(b: Bench, name: str, /, *shapes: tuple[int, ...], **args: Any) -> Call:
    return Call(
        name=name, node="node", args=args, shapes=list(shapes), module="", line="net.py:7", level=0, live=True,
        labels=b.labels, findings=b.findings, around=b.around,
    )  # fmt: skip


def test_reductions_over_space_pass_and_over_channels_pin_or_read() -> None:
    b = Bench()
    x = b.make((2, 3, 4, 4), 1)
    assert b.run("mean", (2, 3), self=x, dim=[2, 3]).dims[1] is x.dims[1] and not b.pinned(x.dims[1])
    assert b.run("sum", (2, 4, 4), self=x, dim=[1]).dims == (None, None, None)
    assert [(r.operand, r.dim) for r in b.findings.reads] == [(0, 1)] and not b.pinned(x.dims[1])
    b.run("amax", (2, 1, 4, 4), self=x, dim=[1], keepdim=True)
    assert b.why(x.dims[1]) == ["is reduced over its channels by amax"]


# ---------------------------------------------------------------------------------------------- products and layers


def test_matmul_reads_with_the_weight_on_either_side() -> None:
    b = Bench()
    x = b.make((2, 5, 3), 2)
    y = b.run("matmul", (2, 5, 4), self=x, other=b.parameter((3, 4)))
    (layer,) = b.findings.layers
    assert (layer["in_channels"], layer["out_channels"], layer["in_size"]) == (3, 4, (5,))
    assert y.dims[2] is b.labels.axes["w", 1] and b.labels.axes["w", 0] is x.dims[2]
    assert [(r.operand, r.dim) for r in b.findings.reads] == [(0, -1)]
    b = Bench()
    x = b.make((2, 3, 5), 1)
    y = b.run("matmul", (2, 4, 5), self=b.parameter((4, 3)), other=x)
    (layer,) = b.findings.layers
    assert (layer["in_channels"], layer["out_channels"], layer["in_size"]) == (3, 4, (5,))
    assert (layer["reading_dim"], layer["writing_dim"]) == (-2, -2)
    assert y.dims[1] is b.labels.axes["w", 0] and [(r.operand, r.dim) for r in b.findings.reads] == [(1, -2)]


def test_matmul_of_two_activations_ties_what_they_sum_over() -> None:
    b = Bench()
    q, k = b.make((2, 5, 3), 2), b.make((2, 3, 5), 1)
    b.run("matmul", (2, 5, 5), self=q, other=k)
    assert ties(b, np.arange(6)) == [[0, 3], [1, 4], [2, 5]] and not b.findings.layers
    b = Bench()
    q = b.make((2, 5, 3), 2)
    b.run("matmul", (2, 5, 5), self=q, other=Tagged.plain((2, 3, 5)))
    assert b.why(q.dims[2]) == ["is multiplied with a matrix whose size cannot change"]


def test_addmm_reads_its_second_tensor() -> None:
    b = Bench()
    x = b.make((2, 3), 1)
    y = b.run("addmm", (2, 4), self=b.parameter((4,), "v"), mat1=x, mat2=b.parameter((3, 4)))
    assert [(r.operand, r.dim) for r in b.findings.reads] == [(1, -1)]
    assert b.classes(np.r_[y.dims[1], b.labels.axes["v", 0]]) == [0, 1, 2, 3] * 2


@pytest.mark.parametrize(
    ("equation", "own", "roles"),
    [
        ("nchw,kc->nk", [False, True], Roles(0, 1, "c", "k")),
        ("kc,nct->nkt", [True, False], Roles(1, 0, "c", "k")),
        ("nc,nc->n", [False, False], None),
        ("ne,eoi->noi", [False, True], None),
        ("nct,ct->nc", [False, True], None),
        ("nc,kc->nck", [False, True], None),
    ],
)
def test_einsum_is_a_layer_when_it_sums_one_letter_and_makes_one(
    equation: str, own: list[bool], roles: Roles | None
) -> None:
    left, right = equation.split("->")
    assert einsum_roles(left.split(","), right, own) == roles


def test_einsum_follows_letters() -> None:
    b = Bench()
    x = b.make((2, 3, 4, 4), 1)
    y = b.run("einsum", (2, 5), equation="nchw, kc -> nk", tensors=[x, b.parameter((5, 3))])
    (layer,) = b.findings.layers
    assert (layer["in_channels"], layer["out_channels"], layer["in_size"], layer["reading_dim"]) == (3, 5, (), -3)
    assert y.dims[1] is b.labels.axes["w", 0] and [(r.operand, r.dim) for r in b.findings.reads] == [(0, 1)]
    assert b.classes(np.r_[x.dims[1], b.labels.axes["w", 1]]) == [0, 1, 2] * 2


def conv(b: Bench, x: Tagged, weight: tuple[int, ...], out: tuple[int, ...], level: int = 0, **args: Any) -> Tagged:
    result = b.run("conv2d", out, input=x, weight=b.parameter(weight), bias=None, level=level, **args)
    assert isinstance(result, Tagged)
    return result


def test_grouped_convolution_ties_equal_offsets() -> None:
    b = Bench(nn.Conv2d(8, 4, 1))
    x = b.make((2, 8, 4, 4), 1)
    y = conv(b, x, (4, 4, 1, 1), (2, 4, 4, 4), groups=2)
    assert ties(b, x.dims[1]) == [[0, 4], [1, 5], [2, 6], [3, 7]] and ties(b, y.dims[1]) == [[0, 2], [1, 3]]
    assert b.labels.grouped["w", 2] is x.dims[1]
    assert not b.findings.layers[0]["follows"] and [c.node for c in b.findings.choices] == ["node"]


def test_grouped_convolution_can_lose_whole_groups_instead() -> None:
    b = Bench(nn.Conv2d(8, 4, 1))
    x = b.make((2, 8, 4, 4), 1)
    y = conv(b, x, (4, 4, 1, 1), (2, 4, 4, 4), groups=2, level=1)
    assert b.classes(np.r_[x.dims[1], y.dims[1]]) == [0] * 4 + [1] * 4 + [0, 0, 1, 1]
    assert b.findings.layers[0]["follows"]


def test_many_narrow_groups_go_as_groups() -> None:
    b = Bench(nn.Conv2d(6, 9, 1))
    x = b.make((2, 6, 4, 4), 1)
    y = conv(b, x, (9, 2, 1, 1), (2, 9, 4, 4), groups=3)
    assert b.classes(np.r_[x.dims[1], y.dims[1]]) == [0, 0, 1, 1, 2, 2, 0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_depthwise_convolution_has_no_choice() -> None:
    b = Bench(nn.Conv2d(3, 6, 1))
    x = b.make((2, 3, 4, 4), 1)
    y = conv(b, x, (6, 1, 1, 1), (2, 6, 4, 4), groups=3)
    assert b.classes(np.r_[x.dims[1], y.dims[1]]) == [0, 1, 2, 0, 0, 1, 1, 2, 2] and not b.findings.choices


def test_groups_of_a_functional_call_are_a_guess() -> None:
    b = Bench()
    x = b.make((2, 8, 4, 4), 1)
    conv(b, x, (4, 4, 1, 1), (2, 4, 4, 4), groups=2)
    assert len(b.findings.assumptions) == 1 and not b.findings.choices
    conv(b, x, (4, 4, 1, 1), (2, 4, 4, 4), groups=2, level=2)
    assert b.why(x.dims[1]) == ["runs in 2 groups by a constant"]


def test_transposed_convolution_has_its_axes_swapped() -> None:
    b = Bench(nn.ConvTranspose2d(4, 6, 1))
    x = b.make((2, 4, 4, 4), 1)
    y = b.run("conv_transpose2d", (2, 6, 4, 4), input=x, weight=b.parameter((4, 3, 1, 1)), bias=None, groups=2)
    assert ties(b, x.dims[1]) == [[0, 2], [1, 3]] and b.classes(y.dims[1]) == [0, 1, 2, 0, 1, 2]
    assert len(b.labels.axes["w", 0]) == 4 and len(b.labels.axes["w", 1]) == 3


def test_convolution_on_an_unlabelled_input_writes_all_the_same() -> None:
    b = Bench(nn.Conv2d(3, 4, 1))
    y = conv(b, Tagged.plain((2, 3, 4, 4)), (4, 3, 1, 1), (2, 4, 4, 4))
    assert y.dims[1] is not None and ("w", 1) not in b.labels.axes and not b.findings.reads


def test_group_norm_goes_by_groups_and_one_group_stays() -> None:
    b = Bench(nn.GroupNorm(2, 6))
    x = b.make((2, 6, 4), 1)
    b.run("group_norm", (2, 6, 4), input=x, num_groups=2, weight=None, bias=None)
    assert ties(b, x.dims[1]) == [[0, 1, 2], [3, 4, 5]] and b.findings.norms["owner"][1] == 3
    b.run("group_norm", (2, 6, 4), input=x, num_groups=1, weight=None, bias=None)
    assert b.why(x.dims[1]) == ["is normalised together with all channels (one group)"]


def test_new_tensors_read_nothing() -> None:
    b = Bench()
    x = b.make((2, 3), 1)
    assert b.run("new_zeros", (2, 7), self=x, size=[2, 7]).dims == (None, None) and not b.pinned(x.dims[1])


# ------------------------------------------------------------------------------------------------ what users are told


class Strange(nn.Module):
    """Uses an operator without a rule, and numbers of its own."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what
        self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(4 if what == "slice" else 8, 5, 1)

    def helper(self, x: Tensor) -> Tensor:
        return x[:, :4] if self.what == "slice" else torch.fft.fft2(x).real

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        y: Tensor = self.last(self.helper(x))
        return y


def line_in(function: Any, text: str) -> str:
    source, start = inspect.getsourcelines(function)
    return f"test_rules.py:{start + next(i for i, line in enumerate(source) if text in line)}"


def test_unknown_operator_is_pinned_by_name_at_the_users_line() -> None:
    graph = trace(Strange("fft"), (torch.randn(2, 3, 4, 4),))
    (note,) = graph.notes
    assert (note.where, note.units) == ("first", 8)
    assert note.why == "passes through fft_fft2, an operator without a rule"
    assert note.line == line_in(Strange.helper, "fft2") and not note.fixed_by_code and graph.free == 0


def test_constant_in_a_helper_is_told_with_its_own_line() -> None:
    (note,) = trace(Strange("slice"), (torch.randn(2, 3, 4, 4),)).notes
    assert note.why == "is cut off at a constant channel number" and note.fixed_by_code and note.units == 4
    assert note.line == line_in(Strange.helper, "slice")


class Crossed(nn.Module):
    """A shuffle between two convolutions, of which the second is grouped."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.shuffle = nn.Conv2d(3, channels, 1), nn.ChannelShuffle(2)
        self.grouped, self.last = nn.Conv2d(channels, 2 * channels, 1, groups=2), nn.Conv2d(2 * channels, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.grouped(self.shuffle(self.first(x))))
        return y


def test_channels_tied_into_one_unit_count_as_pinned() -> None:
    """The shuffle leaves pairs {0, 3}, {1, 4}, {2, 5}; the groups behind it are {0, 3, 1} and {4, 2, 5}."""
    graph = trace(Crossed(6), (torch.randn(2, 3, 4, 4),))
    assert [(note.where, note.units, note.why, note.fixed_by_code) for note in graph.notes] == [
        ("first", 4, "has all 4 channels tied into one unit by shuffle and grouped", True),
        ("first", 2, "has all 2 channels tied into one unit by shuffle", True),
    ]
    assert [site.name for site in graph.sites] == ["grouped"] and (graph.free, graph.total) == (12, 18)


def test_where_equal_offsets_collapse_whole_groups_are_tried() -> None:
    graph = trace(Crossed(4), (torch.randn(2, 3, 4, 4),))
    assert not graph.notes and graph.share_free == 1 and graph.site("first").size == 2
    assert next(layer for layer in graph.layers if layer.name == "grouped").follows
