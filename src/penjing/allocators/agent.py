"""What learns in a search by reinforcement: the DDPG of stable-baselines3, fed one transition at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from penjing.core.errors import MissingExtra
from penjing.core.random import stream
from penjing.core.threads import one_thread
from penjing.core.units import Floats
from penjing.training.state import chance

HIDDEN = [300, 300]
"""Widths of the hidden layers of actor and critic."""

ACTOR_LR, CRITIC_LR = 1e-4, 1e-3
TAU = 0.01
BATCH = 64

RATE = 0.5
"""How much of the last batch the moving average of rewards takes on."""


def need_library() -> None:
    """Refuse to go on without stable-baselines3; nothing is imported, which takes seconds.

    Raises: MissingExtra.
    """
    if find_spec("stable_baselines3") is None:
        raise MissingExtra("The allocator ddpg", "stable-baselines3", "rl")


class Agent:
    """Learns which action in [0, 1] pays in which state.

    Actor and critic have two hidden layers of 300 and are trained by Adam, discounted by nothing, towards targets that
    follow slowly; of the rewards their moving average is taken away. Its chance is its own, it computes on one thread
    and leaves the global generators alone, so that the same transitions make the same agent to the last bit. Nothing
    of it is written to a file: the library would pickle it.

    Shapes: states [sites, features], in [0, 1].
    Paper: Lillicrap et al., Continuous Control with Deep Reinforcement Learning, ICLR 2016, algorithm 1; He et al.,
    AMC, ECCV 2018, section 3.3 for the baseline, eq. 3.
    """

    def __init__(self, features: int, capacity: int, seed: int) -> None:
        from gymnasium import Env
        from gymnasium.spaces import Box
        from stable_baselines3 import DDPG
        from stable_baselines3.common.logger import Logger

        self._seed, self._calls = seed, 0
        spaces: Env[Any, Any] = Env()  # never stepped: episodes are walked by who asks
        spaces.observation_space = Box(0.0, 1.0, (features,), np.float32)
        spaces.action_space = Box(-1.0, 1.0, (1,), np.float32)
        with self._fenced():
            self.model = DDPG(
                "MlpPolicy", spaces, gamma=1.0, tau=TAU, buffer_size=capacity, batch_size=BATCH, device="cpu",
                policy_kwargs={"net_arch": HIDDEN},
            )  # fmt: skip
        self.model.set_logger(Logger(None, []))
        for network, lr in ((self.model.actor, ACTOR_LR), (self.model.critic, CRITIC_LR)):
            network.optimizer.param_groups[0]["lr"] = lr
        vars(self.model)["_update_learning_rate"] = lambda _: None  # which knows one rate for both
        self._memory = self.model.replay_buffer
        vars(self.model)["replay_buffer"] = self.rewards = Centred(self._memory, stream(seed, "agent/replay"))

    @contextlib.contextmanager
    def _fenced(self) -> Iterator[None]:
        """Keep the library to one thread and to chance of this agent's own."""
        before = np.random.get_state()
        self._calls += 1
        try:
            with one_thread(), chance(self._seed, f"agent/{self._calls}", torch.device("cpu")):
                yield
        finally:
            np.random.set_state(before)

    def act(self, state: Floats) -> float:
        """Return what the actor does in a state."""
        with self._fenced():
            action, _ = self.model.predict(state.astype(np.float32), deterministic=True)
        return (float(action[0]) + 1) / 2

    def remember(self, states: Floats, actions: Sequence[float], reward: float) -> None:
        """Keep an episode; each of its steps is given the reward of its end."""
        last = len(actions) - 1
        for t, action in enumerate(actions):
            then = states[min(t + 1, last)]
            self._memory.add(
                states[t], then, np.array([2 * action - 1]), np.array([reward]), np.array([t == last]), [{}]
            )

    def learn(self, updates: int) -> None:
        """Take so many steps of gradient, each on a batch of what is remembered."""
        with self._fenced():
            self.model.train(updates, BATCH)


class Centred:
    """Draws batches of a replay buffer from a generator of its own, with the moving average of rewards taken away."""

    def __init__(self, memory: Any, rng: np.random.Generator) -> None:
        self.memory, self.rng = memory, rng
        self.baseline: float | None = None

    def sample(self, batch: int, env: Any = None) -> Any:
        """Return a batch."""
        drawn = self.memory._get_samples(self.rng.integers(0, self.memory.size(), batch), env=env)
        mean = float(drawn.rewards.mean())
        self.baseline = mean if self.baseline is None else self.baseline + RATE * (mean - self.baseline)
        return drawn._replace(rewards=drawn.rewards - self.baseline)
