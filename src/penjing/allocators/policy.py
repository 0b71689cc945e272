"""Policies that write a sequence of choices and learn from rewards alone: REINFORCE with an LSTM."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from penjing.core.random import derive, stream
from penjing.core.threads import one_thread
from penjing.core.units import Floats, Ints
from penjing.training.state import chance

HIDDEN, LAYERS = 30, 2
"""Of the LSTM."""

RATE = 0.1
"""How much of the last rewards the moving average takes on."""

ENTROPY = 0.15
"""What a policy that chooses evenly everywhere is paid for that, beside rewards up to 1."""

WAVES = 4
"""Frequencies that tell a policy where in the sequence it is."""


class Policy:
    """Draws one of ``choices`` for each row of ``features``, and makes likelier what was rewarded above the average.

    A policy that looks ahead reads the whole sequence both ways before it chooses; one that does not goes from the
    first row to the last and is told the value of its choice before. Its chance is its own and it computes on one
    thread, so that the same rewards make the same policy to the last bit.

    Shapes: features [sequence, columns], best in [0, 1]; draws [rollouts, sequence], indices of ``choices``.
    Paper: Williams, Simple Statistical Gradient-Following Algorithms, 1992, eq. 11; the networks of Ashok et al., N2N
    Learning, ICLR 2018.
    Differs: each rollout is held against a moving average of rewards, where N2N's released code takes one number, the
    mean of the rollouts, for all of them. Entropy is paid for and positions are told by waves: without, five rollouts
    an update settle on whatever they drew first.
    """

    def __init__(
        self, features: Floats, choices: Sequence[float], *, ahead: bool, lr: float, seed: int, name: str
    ) -> None:
        self._x = torch.from_numpy(np.hstack([features, _waves(len(features))]).astype(np.float32))
        self._values = torch.tensor(choices, dtype=torch.float32)
        self._ahead, self._rng, self._baseline = ahead, stream(seed, name), 0.0
        self._updates = 0
        with one_thread(), chance(derive(seed, name), "initial", torch.device("cpu")):
            columns = self._x.shape[1] + (0 if ahead else 1)
            self._lstm = nn.LSTM(columns, HIDDEN, LAYERS, batch_first=True, bidirectional=ahead)
            self._head = nn.Linear(HIDDEN * (2 if ahead else 1), len(choices))
        parameters = [*self._lstm.parameters(), *self._head.parameters()]
        self._adam = torch.optim.Adam(parameters, lr)

    def draw(self, rollouts: int) -> Ints:
        """Return so many sequences of choices."""
        chance = torch.from_numpy(self._rng.random((rollouts, len(self._x))))
        with one_thread(), torch.no_grad():
            drawn = _picked(self._scores(chance.long()), chance) if self._ahead else self._written(chance)
        found: Ints = drawn.numpy()
        return found

    def learn(self, drawn: Ints, rewards: Sequence[float]) -> None:
        """Take one step of gradient towards the draws that were rewarded more than draws so far on average."""
        mean = float(np.mean(rewards))
        baseline = self._baseline if self._updates else mean
        advantages = torch.tensor(rewards, dtype=torch.float32) - baseline
        self._baseline, self._updates = baseline + RATE * (mean - baseline), self._updates + 1
        with one_thread():
            taken = torch.from_numpy(drawn)
            logs = self._scores(taken).log_softmax(-1)
            entropy = -(logs.exp() * logs).sum(-1).mean() / math.log(len(self._values))
            paid = (advantages * logs.gather(-1, taken.unsqueeze(-1)).sum((1, 2))).mean()
            self._adam.zero_grad()
            (-paid - ENTROPY * entropy).backward()
            self._adam.step()

    def probabilities(self) -> Floats:
        """Return, of a policy that looks ahead, the probability of each choice, [sequence, choices]."""
        assert self._ahead, "one that goes on from its own choices has no probabilities before it chose"
        with one_thread(), torch.no_grad():
            found: Floats = self._scores(torch.zeros(1, len(self._x), dtype=torch.long))[0].double().softmax(-1).numpy()
        return found

    def _scores(self, taken: Tensor) -> Tensor:
        """Return the logits at each place of the sequences taken, [rollouts, sequence, choices]."""
        x = self._x.expand(len(taken), *self._x.shape)
        if not self._ahead:
            before = self._values[taken].roll(1, dims=1).unsqueeze(-1)
            before[:, 0] = 1.0
            x = torch.cat([x, before], -1)
        scores: Tensor = self._head(self._lstm(x)[0])
        return scores

    def _written(self, chance: Tensor) -> Tensor:
        """Choose place after place, each given the choices before it."""
        before, memory, drawn = torch.ones(len(chance), 1), None, []
        for row, lucky in zip(self._x, chance.T, strict=True):
            x = torch.cat([row.expand(len(chance), -1), before], -1).unsqueeze(1)
            out, memory = self._lstm(x, memory)
            drawn.append(_picked(self._head(out), lucky.unsqueeze(1)))
            before = self._values[drawn[-1]]
        return torch.cat(drawn, 1)


def _waves(length: int) -> Floats:
    """Return sines and cosines of the position, [length, 2 WAVES], in [0, 1]."""
    angles = np.arange(length)[:, None] * np.pi / 2.0 ** np.arange(WAVES)
    waves: Floats = (1 + np.hstack([np.sin(angles), np.cos(angles)])) / 2
    return waves


def _picked(scores: Tensor, chance: Tensor) -> Tensor:
    """Return the choices that numbers in [0, 1) fall on, [rollouts, places]."""
    edges = scores.double().softmax(-1).cumsum(-1)
    return (edges[..., :-1] <= chance.unsqueeze(-1)).sum(-1)
