"""Policies that learn from rewards: that they find what is rewarded, and repeat themselves to the bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from penjing.allocators.policy import Policy
from penjing.core.units import Floats, Ints

FEW = (0.25, 0.5, 1.0)


def taught(policy: Policy, wanted: Ints, updates: int) -> list[float]:
    """Reward the share of places that are chosen as wanted; return the mean of each update."""
    means = []
    for _ in range(updates):
        drawn = policy.draw(5)
        rewards: Floats = (drawn == wanted).mean(1)
        policy.learn(drawn, rewards.tolist())
        means.append(float(rewards.mean()))
    return means


@pytest.mark.parametrize("seed", [0, 3])
def test_a_hidden_vector_is_found(seed: int) -> None:
    """All places look alike but for where they stand."""
    wanted = np.random.default_rng(seed).integers(0, 2, 12)
    policy = Policy(np.zeros((12, 1)), (0.0, 1.0), ahead=True, lr=0.003, seed=seed, name="hidden")
    means = taught(policy, wanted, 300)
    assert np.mean(means[:10]) < 0.65
    assert (policy.probabilities().argmax(1) == wanted).mean() >= 0.95


def test_one_that_goes_on_from_its_choices_learns_from_them() -> None:
    """A copy of the choice before is wanted, which a policy that is not told it gets right by chance, a third."""
    policy = Policy(np.zeros((6, 1)), FEW, ahead=False, lr=0.01, seed=0, name="copy")
    means = []
    for _ in range(150):
        drawn = policy.draw(8)
        rewards = (drawn[:, 1::2] == drawn[:, ::2]).mean(1)
        policy.learn(drawn, rewards.tolist())
        means.append(rewards.mean())
    assert np.mean(means[:5]) < 0.5 and np.mean(means[-10:]) > 0.9


@pytest.mark.parametrize("ahead", [True, False])
def test_what_is_drawn_is_as_likely_as_what_is_learned_from(ahead: bool) -> None:
    """Step by step and all at once, the network says the same."""
    policy = Policy(np.random.default_rng(0).random((4, 2)), FEW, ahead=ahead, lr=0.05, seed=1, name="same")
    for _ in range(20):
        drawn = policy.draw(4)
        policy.learn(drawn, (drawn == 2).mean(1).tolist())
    drawn = policy.draw(4000)
    with torch.no_grad():
        expected = policy._scores(torch.from_numpy(drawn)).softmax(-1).mean(0).numpy()
    found = np.stack([(drawn == i).mean(0) for i in range(3)], 1)
    assert found == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("ahead", [True, False])
def test_it_repeats_itself_and_leaves_chance_alone(ahead: bool) -> None:
    def draws(seed: int) -> list[list[list[int]]]:
        policy = Policy(np.zeros((5, 1)), FEW, ahead=ahead, lr=0.05, seed=seed, name="again")
        found = []
        for _ in range(5):
            found.append(policy.draw(3))
            policy.learn(found[-1], found[-1].mean(1).tolist())
        return [drawn.tolist() for drawn in found]

    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = draws(0)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(6)
    assert first == draws(0) != draws(1)
