"""Cropped kernels compute what the zeroed ones did, whatever the layer, and go through bundles and files."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from penjing.core.errors import BundleError
from penjing.core.plan import Plan
from penjing.exporting import bundle
from penjing.exporting.onnx import export_onnx
from penjing.exporting.verify import check_parity
from penjing.graph.draft import Draft
from penjing.graph.kernels import blank, croppable, empty
from penjing.graph.trace import trace
from penjing.rewrites.kernels import kernels


def one(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    kind = options.pop("kind", nn.Conv2d)
    return nn.Sequential(kind(4, 6, **options), nn.ReLU(), nn.Conv2d(6, 3, 1)).eval()


def margin_of(model: nn.Module, x: Tensor) -> tuple[int, ...] | None:
    return trace(model, (x,), proof=False).kernels.get("0.weight")


X = torch.randn(2, 4, 11, 14, generator=torch.Generator().manual_seed(1))


@settings(max_examples=15, deadline=None)
@given(
    st.tuples(st.integers(1, 5), st.integers(1, 5)), st.tuples(st.integers(0, 4), st.integers(0, 4)),
    st.integers(1, 3), st.integers(1, 2), st.sampled_from([1, 2]), st.booleans(),
)  # fmt: skip
def test_a_cropped_kernel_equals_the_zeroed_one(
    kernel: tuple[int, int], padding: tuple[int, int], stride: int, dilation: int, groups: int, transposed: bool
) -> None:
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    model: Any = one(kind=kind, kernel_size=kernel, padding=padding, stride=stride, dilation=dilation, groups=groups)
    graph = trace(model, (X,), proof=False)
    margin = graph.kernels.get("0.weight")
    possible = tuple(min((k - 1) // 2, p // dilation) for k, p in zip(kernel, padding, strict=True))
    assert (margin or (0, 0)) == possible
    if margin is None:
        return
    small = copy.deepcopy(model)
    kept = {site.name: np.arange(0) for site in kernels().find(graph)}
    kernels().apply(small, graph, kept)
    assert tuple(small[0].weight.shape[2:]) == tuple(k - 2 * m for k, m in zip(kernel, possible, strict=True))
    blank(model[0].weight.data, margin)
    for x in (X, torch.randn(1, 4, 8, 9)):  # not the size that was traced alone
        torch.testing.assert_close(small(x), model(x), rtol=1e-5, atol=1e-6)
    again = trace(small, (X,), proof=False).layers[0]
    draft = Draft(graph, Plan.of("kernels", kept, kernels().find(graph)), lambda: small).layers[0]
    assert (again.kernel, again.padding, again.out_size) == (draft.kernel, draft.padding, draft.out_size)
    assert again.macs == draft.macs


def test_same_padding_and_one_dimension() -> None:
    same: Any = one(kernel_size=(5, 4), padding="same", dilation=(1, 2))
    assert margin_of(same, X) == (2, 1)
    small = copy.deepcopy(same)
    kernels().apply(
        small, trace(same, (X,), proof=False), {"0.weight/rows2": np.arange(0), "0.weight/columns": np.arange(0)}
    )
    blank(same[0].weight.data, (2, 1))
    assert small[0].kernel_size == (1, 2)
    torch.testing.assert_close(small(X), same(X))
    line = nn.Sequential(nn.Conv1d(4, 4, 3, padding=1))
    assert trace(line, (X[:, :, 0],), proof=False).kernels == {"0.weight": (1,)}
    assert [site.name for site in kernels().find(trace(line, (X[:, :, 0],), proof=False))] == ["0.weight/columns"]


class Called(nn.Module):
    """Reads its kernel by a function, whose padding no module holds."""

    def __init__(self, also: bool) -> None:
        super().__init__()
        self.conv, self.also = nn.Conv2d(4, 4, 3, padding=1), also

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x) if self.also else x
        return y + F.conv2d(x, self.conv.weight, padding=1)


class Own(nn.Conv2d):
    """Pads by itself."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1)), self.weight)


@pytest.mark.parametrize(
    "model",
    [
        Called(False), Called(True), nn.Sequential(Own(4, 4, 3, padding=1)), one(kernel_size=3),
        one(kernel_size=3, padding=1, padding_mode="reflect"), one(kernel_size=3, padding=2, dilation=3),
    ],
    ids=["functional", "both", "own forward", "no padding", "reflected", "less padding than a tap"],
)  # fmt: skip
def test_what_cannot_be_cropped_is_not_offered(model: nn.Module) -> None:
    assert trace(model, (X,), proof=False).kernels == {}


def test_one_weight_in_two_convolutions_is_cropped_in_both() -> None:
    first, second = nn.Conv2d(4, 4, 5, padding=2), nn.Conv2d(4, 4, 5, padding=4, dilation=4)
    second.weight = first.weight
    model = nn.Sequential(first, second)
    graph = trace(model, (X,), proof=False)
    assert croppable(model, graph) == {"0.weight": (1, 1)}
    small: Any = copy.deepcopy(model)
    kernels().apply(small, graph, {site.name: np.arange(0) for site in kernels().find(graph)})
    assert small[0].weight is small[1].weight and small[1].padding == (0, 0)
    with torch.no_grad():
        blank(first.weight, (1, 1))
    torch.testing.assert_close(small(X), model(X))


def test_inner_taps_take_the_outer_ones_along() -> None:
    graph = trace(one(kernel_size=5, padding=2), (X,), proof=False)
    sites = kernels().find(graph)
    assert {site.name: site.within for site in sites} == {
        "0.weight/rows": "0.weight/rows2", "0.weight/rows2": "", "0.weight/columns": "0.weight/columns2",
        "0.weight/columns2": "",
    }  # fmt: skip
    plan = Plan.of("kernels", {site.name: np.arange(0) for site in sites if "rows" in site.name}, sites)
    assert [entry.site for entry in plan] == ["0.weight/rows2"]
    assert kernels().crops(graph, plan.of_rewrite("kernels")) == {"0.weight": (2, 0)}


def test_what_is_empty_is_found_from_outside() -> None:
    weight = torch.ones(2, 3, 5, 5)
    weight[:, :, (0, 1, 4)] = 0  # two rows above, one below
    weight[:, :, :, (1, 3)] = 0  # nothing outside is empty
    assert empty(weight, (2, 2)) == (1, 0)
    assert empty(torch.zeros(1, 1, 3, 3), (1, 1)) == (1, 1)


def build() -> nn.Module:
    return one(kernel_size=(3, 5), padding=(1, 2), stride=2)


def test_bundles_and_files_hold_cropped_kernels(tmp_path: Path) -> None:
    small: Any = build()
    graph = trace(small, (X,), proof=False)
    kernels().apply(small, graph, {"0.weight/rows": np.arange(0), "0.weight/columns": np.arange(0)})
    folder = bundle.write(tmp_path / "small", small)
    again: Any = bundle.load(folder, build)
    assert (again[0].kernel_size, again[0].padding) == ((1, 3), (0, 1))
    assert torch.equal(again(X), small(X))
    assert bundle.load(bundle.write(tmp_path / "twice", again), build)(X).equal(small(X))
    with pytest.raises(BundleError, match=r"no count 'kernel_size' of 0 that could be \(3, 5\)|does not fit"):
        bundle.load(bundle.write(tmp_path / "whole", build()), lambda: copy.deepcopy(small))
    file = export_onnx(small, (X,), {}, tmp_path / "small.onnx")
    assert check_parity(small, file, [(X,)]).relative <= 1e-4
