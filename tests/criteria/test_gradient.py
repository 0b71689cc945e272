from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .nets import LEAVES, READERS, Chain, Mixed, again, batches, evidence, images, score, shaken, site, watching

UNEQUAL = (11, 1, 18)


def labels(n: int = 30) -> Tensor:
    return torch.arange(n).remainder(5)


@pytest.fixture(scope="module")
def mixed():
    model = shaken(Mixed())
    return model, evidence(model, batches(images(30), labels(), *UNEQUAL))


def gate_derivatives(model: nn.Module, name: str, size: int, y: Tensor | None) -> np.ndarray:
    """Derivatives by a gate that really multiplies, image by image: [images, units]."""
    rows = []
    for k, image in enumerate(images(30)):
        gate = torch.ones(size, requires_grad=True)

        def closed(_: str, x: Tensor, gate: Tensor = gate) -> Tensor:
            return x * (gate[:, None, None] if x.dim() == 4 else gate.repeat_interleave(16))

        with watching(model, LEAVES[name], closed):
            logits = model(image[None])
        target = logits.detach().argmax(1) if y is None else y[k : k + 1]
        rows.append(torch.autograd.grad(F.cross_entropy(logits, target), gate)[0].double().numpy())
    return np.array(rows)


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("name", READERS)
def test_taylor_is_the_mean_square_of_single_image_gate_gradients(mixed, name: str, labelled: bool) -> None:
    model, given = mixed
    if not labelled:
        given = again(given, batches(images(30), None, *UNEQUAL))
    expected = gate_derivatives(model, name, site(given, name).size, labels() if labelled else None)
    assert np.allclose(given.gate_gradients(site(given, name)), expected, rtol=1e-3, atol=1e-6)
    found = score("taylor", given, name)
    assert np.allclose(found, (expected**2).mean(0), rtol=1e-3, atol=1e-9) and found.max() > 1e-4


def test_own_predictions_stand_in_for_labels(mixed) -> None:
    model, given = mixed
    with torch.no_grad():
        predicted = model(images(30)).argmax(1)
    assert not torch.equal(predicted, labels())
    with_labels = again(given, batches(images(30), predicted, 30))
    without = again(given, batches(images(30), None, 30))
    for name in ("stem", "inner.weight"):
        assert torch.allclose(score("taylor", with_labels, name), score("taylor", without, name))


def test_taylor_of_two_units_by_hand() -> None:
    first, second = nn.Conv2d(1, 2, 1, bias=False), nn.Linear(2, 2, bias=False)
    first.weight.data = torch.tensor([2.0, 3.0]).view(2, 1, 1, 1)
    second.weight.data = torch.tensor([[1.0, -1.0], [0.5, 0.25]])
    model = nn.Sequential(first, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), second)
    x = torch.tensor([0.5, 0.2]).view(2, 1, 1, 1)
    given = evidence(model, [(x, torch.tensor([0, 1]))], x)

    gates, weights = [], []
    for value, target in ((0.5, 0), (0.2, 1)):
        h = np.array([2.0, 3.0]) * value
        w = np.array([[1.0, -1.0], [0.5, 0.25]])
        p = np.exp(w @ h) / np.exp(w @ h).sum()
        error = p - np.eye(2)[target]
        gates.append(w.T @ error * h)
        weights.append(np.outer(error, h))
    assert np.allclose(score("taylor", given, "0"), np.mean(np.square(gates), axis=0), rtol=1e-5)
    expected = (np.mean(weights, axis=0) * w) ** 2
    assert np.allclose(score("taylor", given, "4.weight"), expected.flatten(), rtol=1e-5)


def test_saliency_is_summed_over_batches_and_averaged_by_taylor(mixed) -> None:
    model, given = mixed
    total = np.zeros(model.outer.weight.shape)
    for x, y in given.batches:
        (grad,) = torch.autograd.grad(F.cross_entropy(model(x), y), model.outer.weight)
        total += (grad * model.outer.weight).detach().double().numpy() ** 2
    assert np.allclose(given.saliency("outer.weight"), total, rtol=1e-4, atol=1e-12)
    assert np.allclose(score("taylor", given, "outer.weight"), total.flatten() / 3, rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("name", ["stem", "last", "inner.weight"])
def test_seeing_every_batch_twice_changes_nothing(mixed, name: str) -> None:
    _, given = mixed
    assert torch.allclose(score("taylor", given, name), score("taylor", again(given, given.batches * 2), name))


def test_a_depthwise_convolution_that_does_nothing_changes_no_score() -> None:
    class WithIdentity(Chain):
        def __init__(self) -> None:
            super().__init__(norm=True)
            self.nothing = nn.Conv2d(8, 8, 1, groups=8, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            x = self.nothing(F.relu(self.norm1(self.conv1(x))))
            return self.head(F.relu(self.conv2(x)).mean((2, 3)))

    plain, other = shaken(Chain(norm=True)), shaken(WithIdentity())
    other.load_state_dict(plain.state_dict(), strict=False)
    other.nothing.weight.data.fill_(1)
    data = batches(images(10), None, 10)
    found = [score("taylor", evidence(model, data), "conv1") for model in (plain, other)]
    assert torch.allclose(*found, rtol=1e-5) and found[0].min() > 0


def test_taylor_predicts_what_removal_costs() -> None:
    model = shaken(Chain(norm=True), seed=4)
    with torch.no_grad():
        model.conv2.weight.mul_(0.02)  # near linear, so that first order is nearly all
    given = evidence(model, batches(images(20), None, 20))
    predicted = given.gate_gradients(site(given, "conv1"))
    with torch.no_grad():
        logits = model(images(20))
        target = logits.argmax(1)
        before = F.cross_entropy(logits, target, reduction="none")
        for unit in range(8):
            kept = model.conv2.weight[:, unit].clone()
            model.conv2.weight[:, unit] = 0
            change = before - F.cross_entropy(model(images(20)), target, reduction="none")
            model.conv2.weight[:, unit] = kept
            assert torch.corrcoef(torch.stack([change, predicted[:, unit]]))[0, 1] > 0.9
            assert torch.allclose(change, predicted[:, unit], atol=0.02)
