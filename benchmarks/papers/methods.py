"""Each method as the steps that a row takes, at a given length and budget.

Final trainings are alike for all: by the labels, at one rate, for the epochs that a method's own search leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from penjing.core.errors import PlanError

LR = 0.02
"""The peak rate of every training that follows a cut, a fifth of a baseline's."""

FRESH_LR = 0.1
"""The peak rate of a training from new weights."""

LEAST_DENSITY = 0.05
"""The least share of its weights that a layer keeps in a search for weights."""

K = 3.0
"""Deviations from its mean within which the weights of a linear layer go."""


@dataclass(frozen=True)
class Setting:
    """What a method is told: how long it may take, what must go, and the network that it is about.

    ``search`` and ``train`` are epochs, ``trials`` plans of a search without training, ``pictures`` those of train,
    ``sites`` how many sites of channels there are. ``removed`` is a share of all parameters. ``bees``, ``policies`` and
    ``rounds`` are the scale's; ``whole`` says that the lengths are the paper's own.
    """

    search: float
    train: int
    trials: int
    bees: tuple[int, int]
    policies: tuple[int, int, int]
    rounds: int
    pictures: int
    sites: int
    blocks: bool
    removed: float
    network: nn.Module
    whole: bool = False

    @property
    def training(self) -> dict[str, Any]:
        """The training after the cut."""
        return {"train": {"epochs": self.train, "lr": LR, "terms": []}}

    def share_of_train(self, trainings: int, epochs: int) -> int:
        """Return on how many pictures so many trainings of so many epochs are as long as the search may be."""
        return max(2, min(self.pictures, int(self.search * self.pictures / (trainings * epochs))))


JUDGED = {"error": {"images": 2000, "recalibrate": 2}}
"""What searches without training judge a plan by."""


def cut(criterion: Any, allocator: Any, measure: Any = JUDGED) -> Callable[[Setting], list[Any]]:
    """Return a method of one cut of channels and a training."""

    def steps(setting: Setting) -> list[Any]:
        chosen = allocator(setting) if callable(allocator) else allocator
        judged = measure(setting) if callable(measure) else measure
        return [
            {"prune": {"criterion": criterion, "allocator": chosen, "measure": judged}},
            "recalibrate",
            setting.training,
        ]

    return steps


# ------------------------------------------------------------------------------------------------- single weights


def kinds(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter], int]:
    """Return the weights of convolutions and of linear layers, and the number of all parameters."""
    found: tuple[list[nn.Parameter], list[nn.Parameter]] = [], []
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            found[isinstance(module, nn.Linear)].append(module.weight)
    return *found, sum(p.numel() for p in model.parameters())


def share_of_convolutions(model: nn.Module, removed: float, elsewhere: int = 0) -> float:
    """Return which share of the convolutions' weights stays where so much of all goes, ``elsewhere`` counted in."""
    convolutions, _, whole = kinds(model)
    weights = sum(w.numel() for w in convolutions)
    return 1 - (removed * whole - elsewhere) / weights


def within_sigma(model: nn.Module, k: float = K) -> int:
    """Return how many weights of linear layers lie within ``k`` deviations of their layer's mean."""
    _, linear, _ = kinds(model)
    return sum(int(((w - w.mean()).abs() <= k * w.std(unbiased=False)).sum()) for w in linear)


def floor_of(share: float) -> float:
    """Return the least share that a layer keeps where ``share`` of all weights stays.

    Half of it where that is less: a floor at the budget leaves an agent nothing to decide.
    """
    return round(min(LEAST_DENSITY, share / 2), 6)


def _search(setting: Setting, include: list[str], cost: str, share: float) -> dict[str, Any]:
    agent = {"ddpg": {"trials": setting.trials, "floor": floor_of(share)}}
    how = {"rewrite": "weights", "criterion": "l1", "allocator": agent, "measure": JUDGED}
    return {"prune": how | {"include": include, "budget": {cost: f"{share:.6g}x"}}}


def ddpg(setting: Setting) -> list[Any]:
    """Let the agent decide the convolutions; all layers where these alone do not hold so many weights."""
    share = share_of_convolutions(setting.network, setting.removed)
    if share > LEAST_DENSITY:
        one = _search(setting, ["conv:*"], "conv_weights", share)
    else:
        one = _search(setting, ["*"], "nonzero", 1 - setting.removed)
    return [one, "recalibrate", setting.training]


def sigma(setting: Setting) -> list[Any]:
    """Set to zero what lies nearest to its layer's mean in deviations, with one number of them for all layers."""
    rule = {"rewrite": "weights", "criterion": "deviation", "allocator": {"global": {"floor": 0.0}}}
    budget = {"nonzero": f"{1 - setting.removed:.6g}x"}
    return [{"prune": rule | {"budget": budget}}, "recalibrate", setting.training]


def combined(setting: Setting) -> list[Any]:
    """Take 3 sigma for linear layers, and of the convolutions what is then still to go, as the agent decides.

    Raises: PlanError where the convolutions would have to keep less than the agent lets them.
    """
    gone = within_sigma(setting.network)
    share = share_of_convolutions(setting.network, setting.removed, gone)
    if not LEAST_DENSITY < share < 1:
        raise PlanError(
            f"combined: with {gone:,} weights of linear layers within {K:g} deviations, convolutions would keep "
            f"{share:.3f} of theirs; ask for another share."
        )
    method = {"sparsity": round(1 - share, 6), "k": K, "trials": setting.trials, "floor": floor_of(share)}
    return [{"ddpg_sigma": method | {"epochs": setting.train, "lr": LR, "terms": []}}]


# ------------------------------------------------------------------------------------------------- searches of widths


def bees(setting: Setting) -> dict[str, Any]:
    """Return the colony."""
    sources, cycles = setting.bees
    return {"abcpruner": {"sources": sources, "cycles": cycles}}


def tuned(setting: Setting) -> dict[str, Any]:
    """Return what bees are judged by: two epochs of training, on as many pictures as the search may take."""
    sources, cycles = setting.bees
    trainings = sources + 2 * sources * cycles + cycles - 1
    return {"tuned_error": {"epochs": 2, "lr": 0.01, "train_images": setting.share_of_train(trainings, 2)}}


def evolution(setting: Setting) -> dict[str, Any]:
    """Return MetaPruning's search with so many trials, in five generations."""
    many = setting.trials // 5
    half = many // 2
    return {
        "evolution": {
            "population": many,
            "iterations": 4,
            "parents": max(2, many // 4),
            "mutations": half,
            "crossovers": many - half,
        }
    }


def _of_trials(name: str) -> Callable[[Setting], dict[str, Any]]:
    return lambda setting: {name: {"trials": setting.trials}}


def amc(setting: Setting) -> list[Any]:
    """Return AMC with so many trials."""
    return [{"amc": {"trials": setting.trials, "epochs": setting.train, "lr": LR, "terms": []}}]


def n2n(setting: Setting) -> list[Any]:
    """Return N2N, each student taught on as many pictures as the length of the search allows."""
    updates, rollouts, taught = setting.policies
    images = setting.share_of_train(2 * updates * rollouts + 2, taught)
    search = {"updates": updates, "rollouts": rollouts, "taught": taught, "images": images}
    return [{"n2n": search | {"epochs": setting.train, "lr": LR, "terms": []}}]


def metapruning(setting: Setting) -> list[Any]:
    """Return MetaPruning; where what is left is no training anew, the best goes on from the weights written for it."""
    start = "scratch" if setting.whole else "generated"
    net = {"epochs": max(1, round(setting.search)), "allocator": evolution(setting), "start": start}
    rate = FRESH_LR if setting.whole else LR
    return [{"metapruning": net}, {"train": {"epochs": setting.train, "lr": rate, "terms": []}}]


# ------------------------------------------------------------------------------------------------- cuts while training

OWN_LENGTH = 20
"""Epochs that the penalties of gal and ssl are made for; a shorter search needs larger ones."""


def gal(setting: Setting) -> list[Any]:
    """Return GAL: channels, and blocks where there are any."""
    structures = "both" if setting.blocks else "channels"
    penalty = 0.03 * max(1.0, OWN_LENGTH / setting.search)
    return [{"gal": {"epochs": setting.search, "structures": structures, "penalty": penalty}}, setting.training]


def ssl(setting: Setting) -> list[Any]:
    """Return structured sparsity learning of filters."""
    penalty = 0.1 * max(1.0, OWN_LENGTH / setting.search)
    return [{"ssl": {"epochs": setting.search, "groups": ["filters"], "penalty": penalty}}, setting.training]


def rbp(recursive: bool) -> Callable[[Setting], list[Any]]:
    """Return recursive Bayesian pruning, or all sites at once for as many epochs in all."""

    def steps(setting: Setting) -> list[Any]:
        each = setting.search / setting.sites
        return [{"rbp": {"epochs": each, "recursive": recursive}}, "recalibrate", setting.training]

    return steps


def taylor_fo(setting: Setting) -> list[Any]:
    """Return rounds of a cut and an epoch; the last has what is left."""
    rounds = min(setting.rounds, setting.train)
    left = setting.train - (rounds - 1)
    return [{"taylor_fo": {"rounds": rounds, "epochs": left, "lr": LR, "terms": []}}]


def penjing(setting: Setting) -> list[Any]:
    """Return what penjing does by default: refitted before the training, and taught by the original in it."""
    return [{"prune": {}}, "reconstruct", "recalibrate", {"train": {"epochs": setting.train, "lr": LR}}]


METHODS: Mapping[str, Callable[[Setting], list[Any]]] = {
    "ddpg": ddpg,
    "sigma": sigma,
    "combined": combined,
    "l1": cut("l1", "uniform"),
    "weight_sum": cut("l1", "uniform"),
    "apoz": cut("apoz", "uniform"),
    "entropy": cut("entropy", "uniform"),
    "fpgm": cut("fpgm", "uniform"),
    "hrank": cut("hrank", "uniform"),
    "bn_gamma": cut("bn_gamma", "global"),
    "taylor_fo": taylor_fo,
    "gal": gal,
    "rbp": rbp(recursive=True),
    "rbp_joint": rbp(recursive=False),
    "ssl": ssl,
    "metapruning": metapruning,
    "abcpruner": cut("random", bees, tuned),
    "n2n": n2n,
    "amc": amc,
    "evolution": cut("l1", evolution),
    "random": cut("l1", _of_trials("random")),
    "knapsack": cut("l1", _of_trials("knapsack")),
    "penjing": penjing,
}
"""By the name of the rows."""

SPARSE = ("ddpg", "sigma", "combined")
"""Methods that set single weights to zero, whose budget is the step's own."""
