"""Blocks that are left out of a ResNet, alone and beside its channels, down to the file and the bundle."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import penjing
from penjing.core.errors import PlanError
from penjing.core.plan import Plan
from penjing.core.registry import build
from penjing.exporting import bundle
from penjing.exporting.onnx import export_onnx
from penjing.exporting.verify import check_parity
from penjing.graph.draft import Draft
from penjing.graph.evidence import Evidence
from penjing.graph.graph import Graph
from penjing.graph.proof import prove
from penjing.graph.trace import plain, trace
from penjing.rewrites.channels import channels
from penjing.rewrites.layers import layers
from penjing.rewrites.perform import perform
from penjing.zoo import resnet20, vgg16_bn

GONE = {"layer1.1": np.arange(0), "layer3.2": np.arange(0)}
CHANGES = {"channels": channels(), "layers": layers()}
EXAMPLE = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def traced() -> tuple[nn.Module, Graph]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = resnet20()
        with torch.no_grad():
            model(torch.randn(64, 3, 16, 16))
    model = plain(model)
    return model, trace(model, (EXAMPLE,), proof=False)


def test_two_blocks_go_proved_exported_and_loaded_again(traced: tuple[nn.Module, Graph], tmp_path: Path) -> None:
    model, graph = traced
    plan = Plan.of("layers", GONE, layers().find(graph))
    small = copy.deepcopy(model)
    perform(small, graph, plan, CHANGES)
    assert prove(graph, model, small, {}, ["layer1.1", "layer3.2"]).ok
    assert len([m for m in small.modules() if isinstance(m, nn.Conv2d)]) == 19 - 4
    file = export_onnx(small, (EXAMPLE,), {}, tmp_path / "small.onnx")
    assert check_parity(small, file, [(EXAMPLE,)]).relative <= 1e-4
    folder = bundle.write(tmp_path / "small.penjing", small, builder="penjing.zoo.resnet:resnet20", plans=[plan])
    again = bundle.load(folder)
    assert torch.equal(again(EXAMPLE), small(EXAMPLE)) and type(again.layer1[1]) is nn.Identity
    assert bundle.plans_of(folder)[0].key == plan.key


def test_channels_and_blocks_go_together(traced: tuple[nn.Module, Graph]) -> None:
    model, graph = traced
    kept = {site.name: np.arange(1, site.size, 2) for site in channels().find(graph)}
    plan = Plan.of("channels", kept | GONE, [*channels().find(graph), *layers().find(graph)])
    assert set(plan.of_rewrite("layers")) == set(GONE) and set(plan.of_rewrite("channels")) == set(kept)
    assert Plan.from_json(plan.to_json()).key == plan.key
    small = copy.deepcopy(model)
    perform(small, graph, plan, CHANGES)
    assert prove(graph, model, small, kept, GONE).ok
    draft = Draft(graph, plan, lambda: small)
    again = Draft(trace(small, (EXAMPLE,), proof=False), Plan(), lambda: small)
    assert [(x.name, x.macs) for x in draft.layers] == [(x.name, x.macs) for x in again.layers]
    for fact in ("parameters", "nonzero", "buffers", "peak_elements"):
        assert getattr(draft, fact) == getattr(again, fact), fact


def test_a_proof_tells_the_wrong_block_from_the_right_one(traced: tuple[nn.Module, Graph]) -> None:
    model, graph = traced
    small = copy.deepcopy(model)
    layers().apply(small, graph, {"layer1.1": np.arange(0)})
    assert not prove(graph, model, small, {}, ["layer1.2"]).ok


def test_a_block_scores_what_its_absence_changes(traced: tuple[nn.Module, Graph]) -> None:
    model, graph = traced
    rng = torch.Generator().manual_seed(1)
    x, y = torch.randn(6, 3, 16, 16, generator=rng), torch.randint(10, (6,), generator=rng)
    evidence = Evidence(model, graph, [(x[:4], y[:4]), (x[4:], y[4:])])
    site = next(site for site in layers().find(graph) if site.name == "layer2.1")
    small = copy.deepcopy(model)
    small.layer2[1] = nn.Identity()
    with torch.no_grad():
        usual, without = model(x), small(x)
    moved = (usual - without).double().square().sum(1).mean()
    assert torch.allclose(build("criterion", "jacobian")(site, evidence), moved[None], rtol=1e-5)
    lost = (nn.functional.cross_entropy(usual, y, reduction="none")
            - nn.functional.cross_entropy(without, y, reduction="none"))  # fmt: skip
    taylor = build("criterion", "taylor")(site, evidence)
    assert torch.allclose(taylor, lost.double().square().mean()[None], rtol=1e-4)
    with pytest.raises(PlanError, match=r"l1 compares units of one layer, but layer2\.1 is a whole block; use jac"):
        build("criterion", "l1")(site, evidence)


def test_a_network_without_blocks_says_so() -> None:
    with pytest.raises(PlanError, match=r"Nothing may be cut: the network has no site of layers\. A block may go"):
        penjing.preview(vgg16_bn(), None, [penjing.prune(rewrite="layers", criterion="random")], "macs=0.5x",
                        example=torch.randn(2, 3, 32, 32))  # fmt: skip


def test_a_damaged_list_of_identities_is_refused(traced: tuple[nn.Module, Graph], tmp_path: Path) -> None:
    small = copy.deepcopy(traced[0])
    layers().apply(small, traced[1], GONE)
    folder = bundle.write(tmp_path / "b", small)
    text = (folder / "manifest.json").read_text()
    for wrong in ('"layer9.1"', "7", '""'):
        (folder / "manifest.json").write_bytes(bundle.sealed(json.loads(text.replace('"layer1.1"', wrong))))
        with pytest.raises(penjing.PenjingError, match=r"identities|no module|no manifest"):
            bundle.load(folder, resnet20)
