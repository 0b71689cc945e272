"""Zeros that grow along a schedule, and weights that come back."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from penjing.core.errors import PenjingError
from penjing.terms.gradual import Gradual, Ranking, smallest, sparsity_at
from penjing.training.checkpoint import Checkpoint
from penjing.training.loop import Options, fit
from training.toys import Plain, toy

NAMES = ("conv1.weight", "conv2.weight", "linear.weight")
BY_LAYER, TOGETHER = Ranking(torch.abs, together=False), Ranking(torch.abs, together=True)


def test_the_share_grows_as_the_paper_says() -> None:
    assert [sparsity_at(t, 0.8) for t in (0.25, 0.5, 0.75, 1, 2)] == pytest.approx([0.4625, 0.7, 0.7875, 0.8, 0.8])
    assert sparsity_at(0.0, 0.8, first=0.3) == pytest.approx(0.3)


def test_a_layer_keeps_its_largest_weight_whatever_the_threshold() -> None:
    weights = {"small": torch.tensor([[0.1, 0.2]]), "large": torch.tensor([3.0, 4.0])}
    assert TOGETHER.kept(weights, 0.5)["small"].tolist() == [[False, True]]
    assert TOGETHER.kept(weights, 0.5)["large"].tolist() == [True, True]
    assert BY_LAYER.kept(weights, 0.5)["large"].tolist() == [False, True]


def test_of_equal_weights_as_many_go_as_were_asked() -> None:
    assert int(smallest(torch.ones(10), 3).sum()) == 3


class Counting(Gradual):
    """Writes down the share of zeros after each step."""

    def after_step(self) -> None:
        super().after_step()
        weights = list(self._weights.values())
        zeros = sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)
        self.__dict__.setdefault("seen", []).append(zeros)


def net() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Plain()


def test_training_follows_the_schedule_and_then_holds() -> None:
    model, term = net(), Counting(NAMES, TOGETHER, 0.8, begin=0, end=8, every=2)
    fit(model, toy(64), None, Options(epochs=3, lr=0.05, batch=16), terms=[term])
    size = sum(model.get_parameter(name).numel() for name in NAMES)
    told = [0, 0.4625, 0.4625, 0.7, 0.7, 0.7875, 0.7875, *[0.8] * 5]
    assert term.__dict__["seen"] == pytest.approx(told, abs=1 / size)


def step(term: Gradual, model: nn.Module, moved: Tensor) -> None:
    weight: Tensor = model.weight  # type: ignore[assignment]
    with torch.no_grad():
        weight += moved
    term.after_step()


def test_a_weight_comes_back_with_what_it_was_when_others_have_become_smaller() -> None:
    model = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.5, 1.0, 2.0, 3.0]]))
    term = Gradual(["weight"], BY_LAYER, 0.25, begin=0, end=100, every=1, first=0.25)
    term.attach(model)
    step(term, model, torch.tensor([[9.0, 0.0, 0.0, 0.0]]) * 0)
    assert model.weight.tolist() == [[0.0, 1.0, 2.0, 3.0]]
    step(term, model, torch.tensor([[9.0, -0.9, 0.0, 0.0]]))
    assert model.weight[0].tolist() == pytest.approx([0.5, 0.0, 2.0, 3.0])
    step(term, model, torch.tensor([[0.0, 9.0, -1.99, 0.0]]))
    assert model.weight[0].tolist() == pytest.approx([0.5, 0.1, 0.0, 3.0])


def test_zeros_get_no_gradient() -> None:
    model = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.5, 1.0, 2.0, 3.0]]))
    term = Gradual(["weight"], BY_LAYER, 0.5, begin=0, end=1, every=1)
    term.attach(model)
    term.after_step()
    model(torch.ones(1, 4)).sum().backward()
    assert model.weight.grad is not None and model.weight.grad.tolist() == [[0.0, 0.0, 1.0, 1.0]]
    term.detach()
    model(torch.ones(1, 4)).sum().backward()
    assert model.weight.grad.tolist() == [[1.0, 1.0, 2.0, 2.0]]


def test_what_was_stopped_goes_on_to_the_same_bits(tmp_path) -> None:  # type: ignore[no-untyped-def]
    def train(stop: bool, checkpoint: Checkpoint | None) -> nn.Module:
        model = net()

        def on_epoch(row: object) -> None:
            if stop and row["epoch"] == 2:  # type: ignore[index]
                raise PenjingError("stopped")

        term = Gradual(NAMES, BY_LAYER, 0.9, begin=0, end=14, every=3)
        recipe = Options(epochs=4, lr=0.1, batch=16, weight_decay=0.01)
        fit(model, toy(64), None, recipe, terms=[term], checkpoint=checkpoint, on_epoch=on_epoch)
        return model

    whole, checkpoint = train(False, None), Checkpoint(tmp_path / "t")
    with pytest.raises(PenjingError, match="stopped"):
        train(True, checkpoint)
    again = train(False, checkpoint)
    for a, b in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
