"""The default criterion against derivatives computed one logit at a time."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penjing.core.registry import build
from penjing.graph.evidence import Evidence
from penjing.graph.trace import plain, trace
from penjing.rewrites.weights import weights

from .nets import batches, score


class Small(nn.Module):
    """Two convolutions, of whose second one channel is read by nothing that matters."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 5, 3, padding=1)
        self.conv2 = nn.Conv2d(5, 4, 3, padding=1)
        self.head = nn.Linear(4, classes)
        with torch.no_grad():
            self.head.weight[:, 2] = 0

    def forward(self, x: Tensor, gate1: Tensor | None = None, gate2: Tensor | None = None) -> Tensor:
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x if gate1 is None else x * gate1[:, None, None]))
        x = x.mean((2, 3))
        logits: Tensor = self.head(x if gate2 is None else x * gate2)
        return logits


def made(classes: int) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(3)
    return plain(Small(classes)), torch.randn(6, 2, 6, 6)


def exact(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Return the squared norm of the logits' derivative by each gate, averaged over the pictures."""
    found = {"conv1": torch.zeros(5, dtype=torch.float64), "conv2": torch.zeros(4, dtype=torch.float64)}
    for picture in x.split(1):
        gates = (torch.ones(5), torch.ones(4))
        by_gate = torch.autograd.functional.jacobian(lambda a, b, p=picture: model(p, a, b)[0], gates)
        for name, derivative in zip(found, by_gate, strict=True):
            found[name] += derivative.double().square().sum(0) / len(x)
    return found


def draws(model: nn.Module, x: Tensor, seeds: int, *sizes: int) -> dict[str, Tensor]:
    graph = trace(model, (x[:2],))
    given = [Evidence(model, graph, batches(x, None, *sizes), seed) for seed in range(seeds)]
    return {name: torch.stack([score("jacobian", one, name) for one in given]) for name in ("conv1", "conv2")}


def test_with_one_logit_it_is_exact_whatever_the_seed_and_the_batches() -> None:
    model, x = made(1)
    truth = exact(model, x)
    for sizes in ((6,), (1, 2, 3)):
        for name, found in draws(model, x, 2, *sizes).items():
            assert torch.allclose(found, truth[name].expand_as(found), rtol=1e-4)


def test_with_many_logits_its_mean_over_seeds_is_exact() -> None:
    model, x = made(7)
    truth = exact(model, x)
    for name, found in draws(model, x, 300, 6).items():
        error = found.std(0) / len(found) ** 0.5
        assert ((found.mean(0) - truth[name]).abs() <= 4 * error + 1e-9).all()
        assert found.std(0).max() > 0.01 * truth[name].max(), "seeds draw other signs"


def test_what_no_logit_depends_on_scores_zero() -> None:
    model, x = made(7)
    found = draws(model, x, 1, 6)["conv2"][0]
    assert found[2] == 0 and (found[[0, 1, 3]] > 0).sum() >= 2


def test_the_division_into_batches_does_not_matter() -> None:
    model, x = made(7)
    one, other = draws(model, x, 1, 6)["conv1"], draws(model, x, 1, 1, 4, 1)["conv1"]
    assert torch.allclose(one, other, rtol=1e-5)


def test_single_weights_have_the_squared_product_with_their_gradient() -> None:
    model, x = made(1)
    graph = trace(model, (x[:2],))
    (site,) = [s for s in weights().find(graph) if s.name == "conv2.weight"]
    found = build("criterion", "jacobian")(site, Evidence(model, graph, batches(x, None, 1, 1, 1, 1, 1, 1)))
    truth = torch.zeros_like(found)
    for picture in x.split(1):
        (gradient,) = torch.autograd.grad(model(picture).sum(), model.conv2.weight)
        truth += (gradient * model.conv2.weight).detach().flatten().double().square() / len(x)
    assert torch.allclose(found, truth, rtol=1e-4)


@pytest.mark.parametrize("trained", [True, False])
def test_it_still_tells_where_the_loss_is_zero(trained: bool) -> None:
    model, x = made(3)
    with torch.no_grad():
        model.head.bias[0] = 1e4 if trained else 0.0
    graph = trace(model, (x[:2],))
    given = Evidence(model, graph, batches(x, torch.zeros(6, dtype=torch.long), 6))
    assert (score("taylor", given, "conv1").sum() == 0) == trained
    assert score("jacobian", given, "conv1").sum() > 0


def test_noise_in_a_weight_costs_what_each_entry_moves_the_logit() -> None:
    """One logit a sample, and one sample a batch: no signs are drawn, and no batch is averaged."""
    model, x = made(1)
    expected = 0.0
    for one in x:
        (gradient,) = torch.autograd.grad(model(one[None]).sum(), [model.conv1.weight])
        expected += float((model.conv1.weight.detach() * gradient).square().sum()) / len(x)
    evidence = Evidence(model, trace(model, (x,)), [(one[None], None) for one in x])
    assert build("criterion", "jacobian").of_noise("conv1.weight", evidence) == pytest.approx(expected, rel=1e-4)
