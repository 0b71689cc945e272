"""What criteria rely on in ``penjing.graph.evidence``, in the cases that break easily."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penjing.core.errors import PlanError
from penjing.core.sites import Site, Slot
from penjing.graph.evidence import Evidence
from penjing.graph.trace import trace

from .nets import Chain, Mixed, again, batches, evidence, images, score, shaken, site


def test_gradients_that_were_there_are_left_alone() -> None:
    given = evidence(shaken(Chain(norm=True)), batches(images(4), None, 4))
    parameter = given.model.conv1.weight
    parameter.grad = torch.full_like(parameter, 7)
    given.model.head.weight.requires_grad_(False)
    first = score("taylor", given, "conv1"), score("taylor", given, "conv1.weight")
    assert (parameter.grad == 7).all()
    assert all(p.grad is None for p in given.model.parameters() if p is not parameter)
    parameter.grad = None
    second = again(given)
    assert torch.equal(first[0], score("taylor", second, "conv1"))
    assert torch.equal(first[1], score("taylor", second, "conv1.weight"))


def test_the_model_is_restored_when_a_pass_fails() -> None:
    given = evidence(shaken(Chain(norm=True)), [(images(4)[:, :2], None)])
    given.model.conv1.train()
    given.model.head.weight.requires_grad_(False)
    for criterion in ("apoz", "taylor"):
        with pytest.raises(RuntimeError, match="channels"):
            score(criterion, given, "conv1")
    assert given.model.conv1.training and not given.model.conv2.training
    assert not given.model.head.weight.requires_grad
    assert all(p.grad is None for p in given.model.parameters())


def test_one_pass_serves_all_sites() -> None:
    given = evidence(shaken(Mixed()), batches(images(6), None, 6))
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    given.model.register_forward_hook(count)
    for criterion, passes in {"apoz": 1, "entropy": 2, "hrank": 3, "taylor": 4}.items():
        for name in ("stem", "expand", "inner", "last"):
            score(criterion, given, name)
        assert calls == passes


def test_a_fold_may_return_one_number() -> None:
    given = evidence(shaken(Mixed()), batches(images(6), None, 4, 2))
    assert [int(n) for n in given.collect(site(given, "stem"), "count", lambda x: torch.tensor(len(x)))] == [6, 6, 6]


def test_frames_are_gathered_to_the_sample_they_belong_to() -> None:
    class Video(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 8, 3), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            n = len(x)
            frames = self.second(self.first(x.flatten(0, 1)).relu()).relu()
            return self.head(frames.mean((2, 3)).unflatten(0, (n, -1)).mean(1))

    x = torch.randn(5, 3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    given = evidence(shaken(Video()), [(x, None)], x[:2])
    found = given.gate_gradients(site(given, "first"))
    alone = [again(given, [(x[k : k + 1], None)]).gate_gradients(site(given, "first")) for k in range(5)]
    assert found.shape == (5, 6) and torch.allclose(found, torch.cat(alone), atol=1e-7) and found.any()


def test_samples_that_cannot_be_told_apart_are_refused() -> None:
    class Steps(nn.Module):
        """Reads eight rows of pixels one after another, the samples of each side by side."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.head = nn.Linear(24, 6), nn.Linear(6, 7), nn.Linear(7, 4)

        def forward(self, x: Tensor) -> Tensor:
            rows = x.permute(2, 0, 1, 3).flatten(2)
            return self.head(self.second(self.first(rows).relu()).relu().mean(0))

    given = evidence(shaken(Steps()), batches(images(5), None, 5))
    with pytest.raises(PlanError, match="second reads 8 rows from 5 samples, so that the gradients at first cannot"):
        score("taylor", given, "first")
    assert score("apoz", given, "first").isfinite().all()
    assert score("taylor", given, "second").shape == (7,)


def test_a_weight_on_the_left_reads_the_last_but_one_dimension() -> None:
    class Unfolded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.weight = nn.Conv2d(3, 4, 3, padding=1), nn.Parameter(torch.randn(6, 64) / 8)
            self.head = nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            # As many positions as inputs, so that the sizes cannot tell them apart.
            patches = F.unfold(F.relu(self.stem(x)), 4, stride=1, padding=0)[:, :, :1].expand(-1, -1, 64)
            return self.head((self.weight @ patches).relu().mean(2))

    given = evidence(shaken(Unfolded()), batches(images(6), None, 6))
    with torch.no_grad():
        corner = given.model.stem(images(6)).relu()[:, :, :4, :4]
    assert torch.allclose(score("apoz", given, "stem"), (corner != 0).double().mean((0, 2, 3)))
    assert score("taylor", given, "stem").shape == (4,)


def test_units_that_no_layer_reads_are_seen_where_they_are_written() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.value = (nn.Conv2d(3, c, 1) for c in (6, 6, 5))
            self.head = nn.Linear(5, 4)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = (f(x).flatten(2) for f in (self.query, self.key, self.value))
            attended = v @ (q.transpose(1, 2) @ k).softmax(2).transpose(1, 2)
            return self.head(attended.relu().mean(2))

    given = evidence(shaken(Attention()), batches(images(6), None, 6))
    found = given.collect(site(given, "query"), "sum", lambda x: x.flatten(2).sum((0, 2)))
    with torch.no_grad():
        expected = [f(images(6)).sum((0, 2, 3)) for f in (given.model.query, given.model.key)]
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(found, expected, strict=True))
    gate = torch.ones(6, requires_grad=True)
    hooks = [
        f.register_forward_hook(lambda m, a, y: y * gate[:, None, None]) for f in (given.model.query, given.model.key)
    ]
    logits = given.model(images(6))
    F.cross_entropy(logits, logits.detach().argmax(1), reduction="sum").backward()
    for hook in hooks:
        hook.remove()
    given.model.zero_grad(set_to_none=True)
    assert torch.allclose(given.gate_gradients(site(given, "query")).sum(0), gate.grad, atol=1e-5)


def test_units_written_and_then_changed_in_place_keep_the_value_that_was_written() -> None:
    class Scored(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Conv2d(3, 6, 3), nn.Conv2d(3, 6, 3)

        def forward(self, x: Tensor) -> Tensor:
            left, right = self.left(x).relu_().flatten(2), self.right(x).sigmoid_().flatten(2)
            return (left.transpose(1, 2) @ right)[:, :4, 0]

    given = evidence(shaken(Scored()), batches(images(6), None, 6))
    left, right = (f(images(6)).detach().requires_grad_() for f in (given.model.left, given.model.right))
    logits = (left.relu().flatten(2).transpose(1, 2) @ right.sigmoid().flatten(2))[:, :4, 0]
    F.cross_entropy(logits, logits.detach().argmax(1), reduction="sum").backward()
    expected = (left * left.grad + right * right.grad).sum((2, 3))
    assert torch.allclose(given.gate_gradients(site(given, "left")), expected, atol=1e-6)


class Aside(Chain):
    """A second branch that goes to another output, is detached, or goes nowhere."""

    def __init__(self, where: str) -> None:
        super().__init__(norm=False)
        self.where = where
        self.other, self.last = nn.Conv2d(3, 5, 3), nn.Conv2d(5, 4, 1)

    def forward(self, x: Tensor) -> Any:
        aside = self.last(F.relu(self.other(x))).mean((2, 3))
        if self.where == "output":
            return super().forward(x), {"aside": aside, "none": None}
        return super().forward(x) + (aside.detach() if self.where == "detached" else 0)


def test_units_of_a_dead_branch_have_no_gradient() -> None:
    given = evidence(shaken(Aside("nowhere")), batches(images(6), None, 4, 2))
    assert torch.equal(given.gate_gradients(site(given, "other")), torch.zeros(6, 5))
    assert score("taylor", given, "conv1").min() > 0


@pytest.mark.parametrize("where", ["output", "detached"])
def test_units_the_loss_cannot_judge_are_refused_and_not_called_useless(where: str) -> None:
    given = evidence(shaken(Aside(where)), batches(images(6), None, 4, 2))
    with pytest.raises(PlanError, match="The loss tells nothing about other: it feeds another output"):
        score("taylor", given, "other")
    alone = evidence(shaken(Aside("nowhere")), given.batches)
    if where == "output":
        assert torch.equal(score("taylor", given, "conv1"), score("taylor", alone, "conv1"))


def test_computed_kernels_are_scored_by_what_they_are_computed_from() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.last = nn.Conv2d(3, 6, 3), nn.Conv2d(7, 4, 1)
            self.v, self.scale = nn.Parameter(torch.randn(7, 6, 3, 3)), nn.Parameter(torch.rand(7, 1, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            x = F.conv2d(self.stem(x).relu(), self.v * self.scale).relu()
            return self.last(x).mean((2, 3))

    given = evidence(shaken(Scaled()), batches(images(4), None, 4))
    (name,) = [s.name for s in given.graph.sites if s.size == 7]
    both = given.model.v.abs().flatten(1).sum(1) + given.model.scale.abs().flatten()
    assert torch.allclose(score("l1", given, name), both.detach().double())
    assert score("taylor", given, name).min() > 0


def test_outputs_and_labels_that_make_no_loss_are_told() -> None:
    given = evidence(shaken(Chain(norm=True)), [(images(4), torch.rand(4))])
    with pytest.raises(PlanError, match=r"Labels \[4\] of torch.float32 do not fit outputs \[4, 4\]"):
        score("taylor", given, "conv1")

    class Number(Chain):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).sum(1)

    given = evidence(shaken(Number(norm=True)), [(images(4), None)])
    with pytest.raises(PlanError, match=r"Gradients need logits \[samples, classes\], but the model returns \[4\]"):
        score("taylor", given, "conv1")


def test_half_precision_weights_do_not_lose_their_saliency() -> None:
    given = evidence(shaken(Chain(norm=False)), batches(images(4), None, 4))
    expected = score("taylor", given, "conv2.weight")
    model = given.model.bfloat16()
    found = score("taylor", Evidence(model, given.graph, [(images(4).bfloat16(), None)]), "conv2.weight")
    assert found.min() >= 0 and torch.corrcoef(torch.stack([expected, found]))[0, 1] > 0.9


def test_a_unit_may_be_any_group_of_weights() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 2), nn.ReLU(), nn.Conv2d(3, 2, 1)).eval()
    known = Evidence(model, trace(model, (torch.randn(2, 2, 4, 4),)))
    every, pairs = np.arange(24), Site("0.weight", "pairs", 12, (), np.arange(0))
    rows = known.rows(pairs, Slot("0.weight", -1, "out", every, every % 12))
    flat = model[0].weight.detach().flatten()
    assert torch.equal(rows, torch.stack([flat[:12], flat[12:]], dim=1))
    with pytest.raises(PlanError, match=r"0\.weight has units of unequal size in 0\.weight"):
        known.rows(pairs, Slot("0.weight", -1, "out", every[:-1], every[:-1] % 12))
