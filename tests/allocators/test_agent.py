"""The library's agent behind its fence: what it is taught, what it leaves alone, what it repeats."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from penjing.allocators import agent as agents
from penjing.allocators.agent import ACTOR_LR, CRITIC_LR, Agent, need_library
from penjing.core.errors import MissingExtra

STATES = np.array([[0.0, 1.0], [1.0, 0.0]])


def taught(seed: int = 0, updates: int = 20) -> Agent:
    agent, rng = Agent(2, 200, seed), np.random.default_rng(1)
    for _ in range(20):
        agent.remember(STATES, rng.random(2).tolist(), float(-rng.random()))
    agent.learn(updates)
    return agent


def weights(agent: Agent) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in agent.model.policy.parameters()])


def test_the_same_transitions_make_the_same_agent_to_the_last_bit() -> None:
    one = taught()
    noise = torch.rand(3), np.random.random(3)  # what others draw in between
    other = taught()
    assert noise and torch.equal(weights(one), weights(other)) and one.act(STATES[0]) == other.act(STATES[0])
    assert not torch.equal(weights(one), weights(taught(seed=1)))


def test_global_generators_and_threads_are_left_alone() -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), torch.get_num_threads()  # type: ignore[index]
    taught().act(STATES[0])
    assert torch.equal(before[0], torch.get_rng_state()) and before[2] == torch.get_num_threads()
    assert np.array_equal(before[1], np.random.get_state()[1])  # type: ignore[index]


def test_the_last_step_is_worth_its_reward_less_the_average_and_nothing_beyond() -> None:
    agent = Agent(2, 200, 0)
    for reward in (-1.0, -3.0):
        agent.remember(STATES[:1], [0.5], reward)
    batch = agent.rewards.sample(64)
    assert bool((batch.dones == 1).all()), "no value of a state beyond the end is added"
    told, mean = batch.rewards + agent.rewards.baseline, agent.rewards.baseline
    assert mean == pytest.approx(float(told.mean())) and set(told.flatten().tolist()) == {-1.0, -3.0}
    second = agent.rewards.sample(64)
    raw = float((second.rewards + agent.rewards.baseline).mean())
    assert agent.rewards.baseline == pytest.approx(mean + 0.5 * (raw - mean), abs=1e-5)


def test_only_the_last_step_of_an_episode_ends_it_and_all_have_its_reward() -> None:
    agent = Agent(2, 200, 0)
    agent.remember(STATES, [0.25, 1.0], -2.0)
    memory = agent.rewards.memory
    assert memory.dones[:2, 0].tolist() == [0, 1] and memory.rewards[:2, 0].tolist() == [-2, -2]
    assert memory.actions[:2, 0, 0].tolist() == [-0.5, 1.0]
    assert memory.next_observations[0, 0].tolist() == STATES[1].tolist()


def test_actor_and_critic_learn_at_rates_of_their_own() -> None:
    model = taught().model
    assert [net.optimizer.param_groups[0]["lr"] for net in (model.actor, model.critic)] == [ACTOR_LR, CRITIC_LR]


def test_it_finds_the_action_that_pays() -> None:
    agent, rng = Agent(2, 400, 0), np.random.default_rng(0)
    for action in rng.random(400):
        agent.remember(STATES[:1], [float(action)], -((float(action) - 0.2) ** 2))
    before = agent.act(STATES[0])
    agent.learn(250)
    assert abs(agent.act(STATES[0]) - 0.2) < 0.1 < abs(before - 0.2)


def test_without_the_library_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents, "find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match=r"allocator ddpg needs stable-baselines3: pip install 'penjing\[rl\]'"):
        need_library()
