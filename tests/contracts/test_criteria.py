"""What holds for every criterion there is, and so for every one that is added."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from penjing.core.errors import PlanError
from penjing.core.registry import build, entries
from penjing.core.sites import Site
from penjing.graph.evidence import Evidence
from penjing.graph.graph import Graph

CRITERIA = sorted(entries("criterion"))
BUILT_IN = {
    "apoz",
    "bn_gamma",
    "deviation",
    "entropy",
    "fpgm",
    "hrank",
    "jacobian",
    "l1",
    "l2",
    "lamp",
    "random",
    "taylor",
}
ON_WEIGHTS = {"deviation", "jacobian", "l1", "l2", "lamp", "random", "taylor"}
ON_LAYERS = {"jacobian", "random", "taylor"}
KINDS = ("channels", "weights", "layers")
COMPARABLE = {"bn_gamma", "deviation", "jacobian", "lamp", "taylor"}


@pytest.fixture
def ready(traced: tuple[nn.Module, Graph]) -> tuple[nn.Module, Graph, list[tuple[Tensor, Tensor | None]]]:
    model, graph = traced
    rng = torch.Generator().manual_seed(1)
    data = [(torch.randn(n, 3, 8, 8, generator=rng), torch.randint(5, (n,), generator=rng)) for n in (9, 4, 1, 6)]
    return copy.deepcopy(model), graph, data


def scored(name: str, kind: str, evidence: Evidence) -> dict[str, Tensor]:
    """Score every site of a kind; nothing if the criterion refuses each of them by name."""
    found: list[Site] = build("rewrite", kind).find(evidence.graph)
    criterion = build("criterion", name)
    scores = {}
    for site in found:
        try:
            scores[site.name] = criterion(site, evidence)
        except PlanError as error:
            assert site.name in str(error) and ("use" in str(error))
    assert len(scores) in (0, len(found))
    for site in found:
        assert not scores or scores[site.name].shape == (site.size,)
    return scores


@pytest.mark.parametrize("name", CRITERIA)
def test_scores_are_finite_floats_one_a_unit(name: str, ready) -> None:
    model, graph, data = ready
    evidence = Evidence(model, graph, data)
    found = [scored(name, kind, evidence) for kind in KINDS]
    assert any(found)
    for score in (score for scores in found for score in scores.values()):
        assert score.is_floating_point() and bool(torch.isfinite(score).all()) and not score.requires_grad


@pytest.mark.parametrize("name", CRITERIA)
def test_the_order_of_the_batches_does_not_matter(name: str, ready) -> None:
    model, graph, data = ready
    for kind in KINDS:
        first = scored(name, kind, Evidence(model, graph, data))
        second = scored(name, kind, Evidence(model, graph, data[::-1]))
        for key, score in first.items():
            assert torch.allclose(score, second[key], rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("name", CRITERIA)
def test_scores_are_the_same_on_every_run(name: str, ready) -> None:
    model, graph, data = ready
    for kind in KINDS:
        first, second = (scored(name, kind, Evidence(model, graph, data, seed=5)) for _ in range(2))
        assert all(torch.equal(score, second[key]) for key, score in first.items())


@pytest.mark.parametrize("name", CRITERIA)
def test_the_model_is_left_as_it_was(name: str, ready) -> None:
    model, graph, data = ready
    for kind in KINDS:
        expected = scored(name, kind, Evidence(model, graph, data))
        model.train()
        model.norm1.eval()
        model.stem.weight.requires_grad_(False)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        found = scored(name, kind, Evidence(model, graph, data))
        assert all(torch.equal(score, expected[key]) for key, score in found.items())
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
        assert all(p.grad is None for p in model.parameters())
        assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["stem.weight"]
        assert [n for n, m in model.named_modules() if not m.training] == ["norm1"]
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
        model.eval()


@pytest.mark.parametrize("name", CRITERIA)
def test_the_inputs_are_left_as_they_were(name: str, ready) -> None:
    model, graph, data = ready
    before = [x.clone() for x, _ in data]
    scored(name, "channels", Evidence(model, graph, data))
    assert all(torch.equal(x, old) and not x.requires_grad for (x, _), old in zip(data, before, strict=True))


@pytest.mark.parametrize("name", CRITERIA)
def test_a_criterion_says_what_it_does(name: str) -> None:
    entry = entries("criterion")[name]
    assert entry.__doc__.splitlines()[0].endswith(".")
    assert "Shapes: [site.size]" in entry.__doc__


def test_the_criteria_that_are_promised_exist_and_score_what_they_should(ready) -> None:
    assert set(CRITERIA) >= BUILT_IN
    model, graph, data = ready
    evidence = Evidence(model, graph, data)
    assert {name for name in BUILT_IN if scored(name, "weights", evidence)} == ON_WEIGHTS
    assert {name for name in BUILT_IN if scored(name, "channels", evidence)} == BUILT_IN - {"deviation"}
    assert {name for name in BUILT_IN if scored(name, "layers", evidence)} == ON_LAYERS
    comparable = {name for name in BUILT_IN if getattr(build("criterion", name), "comparable", False)}
    assert comparable == COMPARABLE
