"""Whole blocks through the whole line: chosen, proved, refitted, trained, exported, kept, gone on with."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import penjing
from contracts.test_allocators import SHORT
from penjing.core.errors import PlanError
from penjing.core.journal import Journal
from penjing.core.plan import Plan
from penjing.core.registry import entries, options
from penjing.core.sites import Site
from penjing.graph import form
from penjing.graph.trace import trace
from penjing.steps.prune import prune
from penjing.steps.reconstruct import reconstruct
from penjing.steps.state import Run, State
from penjing.steps.train import train
from tiny import pictures

BOTH = ("channels", "layers")


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


class Deep(nn.Module):
    """A stem, three blocks, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.blocks = nn.Sequential(Block(8), Block(8), Block(8))
        self.linear = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.blocks(F.relu(self.bn(self.stem(x)))).mean((2, 3)))
        return logits


def deep() -> nn.Module:
    """Build it with fixed weights, of which those of one block do next to nothing."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Deep()
    nn.init.constant_(net.blocks[1].bn2.weight, 1e-3)
    return net


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = pictures(tmp_path_factory.mktemp("pictures"))
    return folder


def widths(result: penjing.Result) -> dict[tuple[str, str], int]:
    return {(line["kind"], line["site"]): line["after"] for line in result.results["sites"]}


def test_the_block_that_does_least_goes_and_the_channels_in_it_with_it(data: Path, tmp_path: Path) -> None:
    steps = [prune(rewrite=BOTH), reconstruct(images=64), train(epochs=1, batch=16), "export", "check"]
    result = penjing.run(deep(), data, steps, "macs=0.6x", folder=tmp_path, references=("random", "scratch"))
    found = widths(result)
    assert found["layers", "blocks.1"] == 0 and found["channels", "blocks.1.conv1"] == 0
    assert found["layers", "blocks.0"] == found["layers", "blocks.2"] == 1
    assert type(result.model.blocks[1]) is nn.Identity
    assert all(line["ok"] for line in result.results["certificates"])
    macs = [row["macs"] for row in result.results["rows"]]
    assert macs[1] <= 0.6 * macs[0] and macs[1] == macs[2] == macs[3]
    again = penjing.load(tmp_path, deep)
    assert form.same(form.tensors(again), form.tensors(result.model))
    assert "blocks.1: 1 to 0" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_second_cut_goes_on_from_the_first(data: Path) -> None:
    steps = [prune(rewrite="channels", budget="macs=0.9x"), prune(rewrite="layers"), "reconstruct"]
    result = penjing.run(deep(), data, steps, "macs=0.55x")
    found = widths(result)
    assert 0 in (found["layers", f"blocks.{i}"] for i in range(3))
    for i in range(3):
        assert (found["layers", f"blocks.{i}"] == 0) == (found["channels", f"blocks.{i}.conv1"] == 0)


def test_a_search_tries_blocks_and_workers_find_the_same(data: Path) -> None:
    steps = [prune(rewrite=BOTH, allocator={"random": {"trials": 4, "spread": 2.0}})]
    results = [penjing.run(deep(), data, steps, "macs=0.4x", workers=workers).results for workers in (0, 1)]
    assert results[0]["sites"] == results[1]["sites"]
    assert results[0]["trials"] == results[1]["trials"] and len(results[0]["trials"]) == 4


def test_a_run_that_is_killed_goes_on_without_the_block(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [prune(rewrite=BOTH), train(epochs=1, batch=16)]
    whole = penjing.run(deep(), data, steps, "macs=0.6x", folder=tmp_path / "whole")

    class Killed(BaseException):
        pass

    honest = Journal.note

    def note(self: Journal, event: str, **facts: object) -> None:
        honest(self, event, **facts)
        if event == "step done" and "prune" in str(facts["step"]):
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "note", note)
        with pytest.raises(Killed):
            penjing.run(deep(), data, steps, "macs=0.6x", folder=tmp_path / "run")
    broken = penjing.run(deep(), data, steps, "macs=0.6x", folder=tmp_path / "run")
    assert broken.results["resumed"][0]["after"] == "02-prune"
    assert form.same(form.tensors(whole.model), form.tensors(broken.model))
    assert whole.results["sites"] == broken.results["sites"]


@pytest.mark.parametrize("share", [0.9, 0.2])
@pytest.mark.parametrize("name", sorted(set(entries("allocator")) - {"threshold"}))
def test_every_allocator_chooses_among_channels_and_blocks(name: str, share: float, tmp_path: Path) -> None:
    few = {key: value for key, value in SHORT.items() if key in options(entries("allocator")[name])}
    net = deep()
    state = State(net, net, None, ((torch.randn(2, 3, 8, 8),), {}))
    with closing(Run(tmp_path, {"macs": f"{share}x"}, 0)) as run:
        cut, _ = prune(rewrite=BOTH, criterion="random", allocator={name: few}).decide(state, run)
    assert cut.certificate is not None and cut.certificate.ok
    gone = {entry.site for entry in cut.plan if entry.rewrite == "layers"}
    assert gone == {f"blocks.{i}" for i in range(3) if type(cut.model.blocks[i]) is nn.Identity}
    assert all((len(entry.kept) == 0) == (entry.rewrite == "layers") for entry in cut.plan)
    assert not any(entry.site.startswith(block) for entry in cut.plan if entry.site not in gone for block in gone)
    whole, small = (sum(x.macs for x in trace(m, *state.example, proof=False).layers) for m in (net, cut.model))
    assert 0 < small <= share * whole


def test_losses_are_measured_of_blocks_as_of_channels(data: Path) -> None:
    step = prune(rewrite=BOTH, allocator={"knapsack": {"loss": "measured", "trials": 40}}, measure="divergence")
    results = penjing.run(deep(), data, [step], "macs=0.6x").results
    alone = {trial["plan"] for trial in results["trials"]}
    sites = [Site(f"blocks.{i}", "layers", 1, (), np.arange(0), least=0) for i in range(3)]
    assert {Plan.of("layers", {site.name: []}, sites).key for site in sites} <= alone
    assert any("losses by measured" in cut["said"] for cut in results["sensitivity"])


def test_channels_zeros_and_blocks_make_one_plan(data: Path) -> None:
    step = prune(rewrite=("channels", "weights", "layers"), allocator={"uniform": {"keep": 0.4}})
    result = penjing.run(deep(), data, [step])
    assert {line["kind"] for line in result.results["sites"]} == {"channels", "weights", "layers"}
    (proof,) = result.results["certificates"]
    assert proof["ok"] and not any(isinstance(m, Block) for m in result.model.modules())
    assert float((result.model.stem.weight == 0).float().mean()) > 0.3


@pytest.mark.parametrize("wrong", [(), ("layers", "layers")])
def test_rewrites_are_named_once_each(wrong: tuple[str, ...]) -> None:
    with pytest.raises(PlanError, match=r"rewrite names what may be cut, each once; got"):
        prune(rewrite=wrong)


def test_one_rewrite_in_a_list_is_that_rewrite() -> None:
    assert prune(rewrite=("layers",)) == prune(rewrite="layers")


def test_what_a_block_is_scored_by_must_know_blocks(data: Path) -> None:
    with pytest.raises(PlanError, match=r"No site can be scored\. blocks\.0: hrank compares units .* is a whole block"):
        penjing.run(deep(), data, [prune(rewrite="layers", criterion="hrank")], "macs=0.6x")
