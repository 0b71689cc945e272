"""Collaborative layers: attached without a change, traced, cut, kept in a bundle and exported like anything else."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penjing.core.errors import BundleError, PlanError
from penjing.exporting import bundle
from penjing.exporting.onnx import export_onnx
from penjing.exporting.verify import check_parity
from penjing.graph import form
from penjing.graph.collaborative import Kind, Partner, attach, collaborators, partners, places
from penjing.graph.proof import prove
from penjing.graph.surgery import cut
from penjing.graph.trace import trace
from penjing.zoo.resnet import CifarResNet
from tiny import tiny

KINDS: tuple[Kind, ...] = ("shared", "pointwise")
X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def opened(model: nn.Module) -> nn.Module:
    """Let maps be zero here and there."""
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in collaborators(model).values():
            layer.map.conv.weight.copy_(torch.randn(layer.map.conv.weight.shape, generator=rng))
            layer.map.norm.reset_parameters()
    return model.eval()


def collaborative(kind: Kind) -> nn.Module:
    model = tiny().eval()
    attach(model, {"conv1": Partner(kind, "bn1")})
    return opened(model)


@pytest.mark.parametrize("kind", KINDS)
def test_a_map_that_is_1_changes_nothing_and_the_product_is_the_papers(kind: Kind) -> None:
    plain, model = tiny().eval(), tiny().eval()
    attach(model, {"conv1": Partner(kind, "bn1")})
    assert torch.equal(plain(X), model(X))
    layer = collaborators(opened(model))["conv1"]
    x = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(2))
    paper = F.relu(plain.bn1(plain.conv1(x))) * F.relu(layer.map.norm(layer.map.conv(x)))  # type: ignore[operator]
    torch.testing.assert_close(F.relu(model.bn1(model.conv1(x))), paper)  # type: ignore[operator]
    zero = (paper == 0).float().mean((0, 2, 3))
    assert layer.map(x).shape[1] == (1 if kind == "shared" else 32) and 0.3 < float(zero.mean()) < 1


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_traced_and_a_cut_of_it_is_proved(kind: Kind) -> None:
    model = collaborative(kind)
    graph = trace(model, (X,))
    assert [layer.name for layer in graph.layers] == ["stem", "conv1.map.conv", "conv1", "conv2", "linear"]
    (site,) = [site for site in graph.sites if "conv1.weight" in {slot.tensor for slot in site.slots_with("out")}]
    kept = {site.name: np.arange(0, site.size, 2)}
    smaller = copy.deepcopy(model)
    cut(smaller, graph, kept)
    assert prove(graph, model, smaller, kept).ok
    layer = collaborators(smaller)["conv1"]
    assert layer.out_channels == 16 and layer.map.conv.out_channels == (1 if kind == "shared" else 16)
    smaller(X)


def test_a_bundle_makes_it_again_and_refuses_a_wrong_partner(tmp_path: Path) -> None:
    model = collaborative("shared")
    graph = trace(model, (X,))
    cut(model, graph, {"conv1": np.arange(5)})
    bundle.write(tmp_path / "b", model)
    again = bundle.load(tmp_path / "b", tiny)
    assert form.same(form.tensors(model), form.tensors(again)) and torch.equal(model(X), again(X))
    manifest = tmp_path / "b" / "manifest.json"
    text = manifest.read_text()
    for good, bad in (('"shared"', '"odd"'), ('"norm": "bn1"', '"norm": "linear"')):
        manifest.write_bytes(bundle.sealed(json.loads(text.replace(good, bad))))
        with pytest.raises(BundleError, match=r"no manifest|no batch norm 'linear'"):
            bundle.load(tmp_path / "b", tiny)


def test_its_file_computes_the_same(tmp_path: Path) -> None:
    model = collaborative("pointwise")
    path = export_onnx(model, (X,), {}, tmp_path / "m.onnx")
    assert check_parity(model, path, [X]).relative < 1e-5


def test_of_a_residual_block_the_first_convolution_gets_one_and_others_are_told_why() -> None:
    model = CifarResNet(1, 10, "B").eval()
    found, refused = places(model, trace(model, (torch.randn(2, 3, 16, 16),), proof=False), "pointwise")
    assert found == {f"layer{i}.0.conv1": Partner("pointwise", f"layer{i}.0.bn1") for i in (1, 2, 3)}
    assert "reads the picture" in refused["conv1"] and "across a sum" in refused["layer1.0.conv2"]
    assert "across a sum" in refused["layer2.0.shortcut.0"] and "no nn.Conv2d" in refused["linear"]
    attach(model, found)
    again, _ = places(model, trace(model, (torch.randn(2, 3, 16, 16),), proof=False), "shared")
    assert not again and partners(model) == found


class Odd(nn.Module):
    """Convolutions of which none may have a map, each for a reason of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.depthwise, self.norm1 = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8)
        self.circular, self.norm2 = nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular"), nn.BatchNorm2d(8)
        self.twice, self.norm3 = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.bare = nn.Conv2d(8, 8, 3)
        self.tight, self.norm4 = nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.depthwise(F.relu(self.first(self.stem(x))))))
        x = F.relu(self.norm3(self.twice(self.twice(F.relu(self.norm2(self.circular(x)))))))
        return F.relu(self.norm4(self.tight(F.relu(self.bare(x)))))


def test_odd_convolutions_are_refused_each_with_its_reason() -> None:
    model = Odd().eval()
    found, refused = places(model, trace(model, (X,), proof=False), "pointwise")
    assert not found
    for name, why in {"depthwise": "grouped", "circular": "pads by circular", "twice": "more than once",
                      "bare": "no batch norm", "tight": "another size"}.items():  # fmt: skip
        assert why in refused[name], name
    assert list(places(model, trace(model, (X,), proof=False), "shared")[0]) == ["tight"]
    with pytest.raises(PlanError, match=r"no convolution 'twise'.*twice"):
        attach(model, {"twise": Partner("shared", "norm3")})
