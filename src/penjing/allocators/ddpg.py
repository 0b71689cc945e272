"""Search by reinforcement: an agent decides site after site and learns from what whole plans were measured to lose."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from penjing.allocators.agent import Agent, need_library
from penjing.allocators.problem import Problem
from penjing.allocators.walk import FEATURES, Episode, Walk
from penjing.core.errors import PlanError
from penjing.core.random import derive
from penjing.core.registry import register
from penjing.core.search import Search, Trial
from penjing.core.units import Floats

TOGETHER = 16
"""Episodes of the warm-up asked about at once, whoever measures them, so that workers change nothing; and its least."""

WIDTH, DECAY = 0.5, 0.95
"""Standard deviation of the exploration after the warm-up, and its factor from one episode to the next."""

KEPT = 100
"""Episodes that the agent remembers."""

REWARDS = ("budget", "guaranteed")
"""What an episode may be rewarded for."""


@register("allocator")
@dataclass(frozen=True)
class ddpg:  # noqa: N801  (registered under its own name)
    """Let an agent choose the share of each site in turn, and learn from how the plan is judged.

    Each of ``trials`` episodes decides all sites in their order; what it decides is held back so that every bound can
    still be kept, and its plan is measured once. The first ``warmup``, a share of the trials but at least 16, are
    decided by chance, the others by the actor with noise that fades. The best plan measured is taken.

    ``reward`` says what pays: ``budget``, to lose little within the budget; or ``guaranteed``, the paper's other mode,
    minus the loss times the logarithm of the bounded cost, which also pays for cutting further. ``floor`` is the share
    that every site keeps as long as the budget allows. ``together`` episodes are measured at a time, by as many
    workers, before the agent learns from them.

    Raises: PlanError naming an option; MissingExtra without stable-baselines3.
    Paper: He et al., AMC: AutoML for Model Compression and Acceleration on Mobile Devices, ECCV 2018.
    Differs: any budget that plans can be priced by; states tell what a problem knows (``walk``); losses are divided by
    the largest of the warm-up, so that any measure can be minimised; the warm-up is learned from as well, at its end,
    one update a transition like all others; an episode decides the units that a site shares between layers, not the
    inputs of one layer.
    """

    trials: int = 400
    warmup: float = 0.25
    reward: str = "budget"
    floor: float = 0.1
    together: int = 1

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: PlanError naming the option; MissingExtra.
        """
        for name in ("trials", "together"):
            if getattr(self, name) < 1:
                raise PlanError(f"ddpg: {name} must be 1 or more; got {getattr(self, name)}.")
        if not 0 <= self.warmup <= 1:
            raise PlanError(f"ddpg: warmup is a share of the trials, from 0 to 1; got {self.warmup}.")
        if not 0 <= self.floor < 1:
            raise PlanError(f"ddpg: floor is the share that a site keeps, from 0 to below 1; got {self.floor}.")
        if self.reward not in REWARDS:
            raise PlanError(f"ddpg: reward is one of {', '.join(REWARDS)}; got {self.reward!r}.")
        need_library()

    def __call__(self, problem: Problem) -> Search:
        """Search; the plan returned has the greatest reward, which under a budget is the least loss.

        Raises: Infeasible when the budget cannot be met; PlanError without a budget.
        """
        problem.need_bounds("ddpg")
        walk, rng = Walk(problem, self.floor), problem.rng("allocator/ddpg")
        agent = Agent(FEATURES, KEPT * len(problem.sites), derive(problem.seed, "allocator/ddpg"))
        warm = min(max(TOGETHER, round(self.warmup * self.trials)), self.trials)
        made: list[Episode] = []
        tried: list[Trial] = []
        while len(made) < warm:
            chance = [walk.decide(lambda _: rng.random()) for _ in range(min(TOGETHER, warm - len(made)))]
            tried += yield [problem.keep(one.counts) for one in chance]
            made += chance
        judge = _Judge(problem, self.reward, tried)
        for one, trial in zip(made, tried, strict=True):
            agent.remember(one.states, one.actions, judge(trial))
        if warm < self.trials:
            agent.learn(warm * len(problem.sites))
        while len(tried) < self.trials:
            width = WIDTH * DECAY ** (len(tried) - warm)
            act = partial(_explored, agent, rng, width)
            chosen = [walk.decide(act) for _ in range(min(self.together, self.trials - len(tried)))]
            answers = yield [problem.keep(one.counts) for one in chosen]
            tried += answers
            for one, trial in zip(chosen, answers, strict=True):
                agent.remember(one.states, one.actions, judge(trial))
                agent.learn(len(problem.sites))
        return max(tried, key=judge).plan


class _Judge:
    """Rewards trials; ``first`` are those of the warm-up."""

    def __init__(self, problem: Problem, reward: str, first: Sequence[Trial]) -> None:
        self.problem, self.reward = problem, reward
        self.scale = max((abs(trial[problem.minimise]) for trial in first), default=0.0) or 1.0

    def __call__(self, trial: Trial) -> float:
        loss = trial[self.problem.minimise] / self.scale
        return -loss if self.reward == "budget" else -loss * self._logarithm(trial)

    def _logarithm(self, trial: Trial) -> float:
        """Return ln of the bounded costs, multiplied, in a unit small enough that limits are a thousand or more."""
        units = ((bound, max(1.0, 1000 / bound.limit)) for bound in self.problem.bounds)
        return sum(math.log(max(unit * trial[bound.cost], 1.0)) for bound, unit in units)


def _explored(agent: Agent, rng: np.random.Generator, width: float, state: Floats) -> float:
    """Draw from the normal distribution around what the agent does that is cut off outside [0, 1]."""
    from scipy.special import ndtr, ndtri

    mean = agent.act(state)
    low, high = ndtr(-mean / width), ndtr((1 - mean) / width)
    return float(np.clip(mean + width * ndtri(low + (high - low) * rng.random()), 0.0, 1.0))
