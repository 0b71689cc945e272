"""What each count of a site loses: by scores, by measuring the site alone, and how well both foretell whole plans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from penjing.allocators.problem import Problem
from penjing.core.plan import Plan
from penjing.core.search import Trial
from penjing.core.sites import Site
from penjing.core.units import Floats

Losses = Mapping[str, Floats]
"""By site, what a plan loses there that keeps so many units: [size + 1]."""


def by_scores(problem: Problem) -> dict[str, Floats]:
    """Return the score that each count of a site loses."""
    return {site.name: losing(problem.scores[site.name], site) for site in problem.sites}


def losing(scores: Floats, site: Site | None = None) -> Floats:
    """Return the score that each count loses where the best units stay, or those that come first in a site's order.

    Shapes: scores [size]; returns [size + 1] by count.

    >>> losing(np.array([1.0, 5.0, 2.0])).tolist()
    [8.0, 3.0, 1.0, 0.0]
    """
    ordered = site is not None and site.order is not None
    going = scores[site.order][::-1] if ordered else np.sort(scores)  # type: ignore[union-attr]
    found: Floats = np.append(np.cumsum(going)[::-1], 0.0)
    return found


def ranked(scores: Floats, site: Site) -> Floats:
    """Return the scores best first; where units stay in an order, of each place the best from there on.

    So that a cut through them keeps what is above it, with all that comes before.
    """
    if site.order is None:
        return np.sort(scores)[::-1]
    best: Floats = np.maximum.accumulate(scores[site.order][::-1])[::-1]
    return best


def points(site: Site, least: int, count: int) -> list[int]:
    """Return at most ``count`` counts to measure a site at: from the least up, in equal ratios, without the whole.

    A site that may go altogether is measured without it first.

    >>> points(Site("conv", "channels", 64, (), np.arange(64), step=4), 4, 4)
    [4, 8, 16, 32]
    """
    none = [0][: 1 - min(least, 1)]
    ratios = (max(least, 1) / site.size) ** ((count - np.arange(count)) / count)
    found = sorted({n for ratio in ratios if least <= (n := site.allowed(ratio * site.size + 0.5)) < site.size})
    return [*none, *(n for n in found if n)][:count]


def curve(lost: Floats, kept: Sequence[int], measured: Sequence[float]) -> Floats:
    """Return the loss of every count from what some counts were measured to lose.

    What is measured is made monotone first (isotonic regression), since a cut that helps is noise, and then joined
    monotonically (PCHIP), not over counts but over the score ``lost`` by them: between two counts the scores tell the
    shape, and one count alone scales them. Where nothing was measured there was nothing to choose: nothing is lost.

    Shapes: lost [size + 1] by count; kept and measured [points].
    """
    from scipy.interpolate import PchipInterpolator
    from sklearn.isotonic import isotonic_regression

    size = len(lost) - 1
    if not len(kept):
        return np.zeros(size + 1)
    order = np.argsort(kept)
    values = np.maximum(isotonic_regression(np.asarray(measured, dtype=np.float64)[order], increasing=False), 0.0)
    # Removed units stand beside the score, so that counts differ where scores do not.
    removed = np.arange(size, -1, -1) / size
    rising = np.maximum.accumulate(np.maximum(lost, 0.0)[::-1])[::-1]
    along = removed + rising / rising[0] if rising[0] > 0 else 2 * removed
    x = np.append(along[np.asarray(kept)[order]], 0.0)[::-1]
    y = np.append(values, 0.0)[::-1]
    found: Floats = PchipInterpolator(x, y)(np.minimum(along, x[-1]))
    beyond = along > x[-1]
    found[beyond] = y[-1] * along[beyond] / x[-1]
    return found


@dataclass(frozen=True, eq=False)
class Foretold:
    """How well losses foretell what whole plans were measured to lose.

    ``rank`` is Spearman's correlation; ``explained`` the share of the variance explained, once the losses are scaled.
    """

    name: str
    losses: Losses
    rank: float
    explained: float


def matched(problem: Problem, losses: Losses, alone: Sequence[tuple[Site, int]], above: Sequence[float]) -> Losses:
    """Return losses in the unit of what single sites, with so many units, were measured to lose.

    Scores of channels, ranks and bits have no unit in common, so each rewrite has a factor of its own, by least
    squares over its sites. One of which nothing was measured to lose anything keeps its losses out of the choice.
    """
    factors = {}
    for family in {site.rewrite for site in problem.sites}:
        mine = [i for i, (site, _) in enumerate(alone) if site.rewrite == family]
        told = np.array([losses[alone[i][0].name][alone[i][1]] for i in mine])
        factors[family] = _factor(told, np.array([above[i] for i in mine]))
    return {site.name: factors[site.rewrite] * losses[site.name] for site in problem.sites}


def _factor(told: Floats, measured: Floats) -> float:
    return max(float(told @ measured) / float(told @ told), 0.0) if told.any() else 0.0


def foretell(problem: Problem, losses: Mapping[str, Losses], trials: Sequence[Trial], whole: float) -> list[Foretold]:
    """Compare losses with what plans were measured to lose, above the ``whole`` network; the best comes first.

    Each is scaled to the unit that is measured, rewrite by rewrite: what bits lose in a network of fewer channels is
    not what they lose in the whole one. Where there are scores and measured curves, their mean is a third.
    """
    measured = np.array([trial[problem.minimise] - whole for trial in trials])
    scaled: dict[str, Losses] = {}
    for name, mine in losses.items():
        factors = _factors(problem, mine, trials, measured)
        scaled[name] = {site.name: factors[site.rewrite] * mine[site.name] for site in problem.sites}
    if len(scaled) == 2:
        one, other = scaled.values()
        scaled["both"] = {site: (one[site] + other[site]) / 2 for site in one}
    told = [_told(problem, name, mine, trials, measured) for name, mine in scaled.items()]
    return sorted(told, key=lambda one: (-one.rank, -one.explained))


def _factors(problem: Problem, losses: Losses, trials: Sequence[Trial], measured: Floats) -> dict[str, float]:
    """Return what losses of each rewrite are to be multiplied by, by least squares over plans.

    A few plans hardly tell rewrites apart, so that the factor of all together counts as one plan more of each.
    """
    from scipy.optimize import nnls

    families = sorted({site.rewrite for site in problem.sites})
    parts = np.array([[total(problem, losses, trial.plan, family) for family in families] for trial in trials])
    common = _factor(parts.sum(1), measured) or 1.0
    if len(families) == 1 or not parts.any():
        return dict.fromkeys(families, common)
    usual = float(np.sqrt(np.square(common * parts.sum(1)).mean()))
    rows = np.vstack([common * parts, usual * np.eye(len(families))])
    solved, _ = nnls(rows, np.append(measured, np.full(len(families), usual)))
    return {family: common * float(factor) for family, factor in zip(families, solved, strict=True)}


def _told(problem: Problem, name: str, losses: Losses, trials: Sequence[Trial], measured: Floats) -> Foretold:
    from scipy.stats import rankdata

    sums = np.array([total(problem, losses, trial.plan) for trial in trials])
    spread = float(np.square(measured - measured.mean()).sum())
    explained = 1 - float(np.square(measured - sums).sum()) / spread if spread > 0 else 0.0
    ranks = [rankdata(sums), rankdata(measured)]
    known = all(np.ptp(values) > 0 for values in ranks)
    return Foretold(name, losses, float(np.corrcoef(ranks[0], ranks[1])[0, 1]) if known else 0.0, explained)


def total(problem: Problem, losses: Losses, plan: Plan, family: str | None = None) -> float:
    """Return what a plan loses, added up over its sites, or those of one rewrite.

    Nothing counts beside the site that it goes with.
    """
    taken = problem.deciding(plan)
    if family is not None:
        mine = {site.name for site in problem.sites if site.rewrite == family}
        taken = [entry for entry in taken if entry.site in mine]
    return sum(float(losses[entry.site][len(entry.kept)]) for entry in taken)
