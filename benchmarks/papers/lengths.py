"""How long each paper trains, its search included, and how a shorter training is shared out."""

from __future__ import annotations

from dataclasses import dataclass

from papers.scale import Scale


@dataclass(frozen=True)
class Length:
    """Epochs of training in a method's search, and after it; ``known`` says how we know them.

    "code" is the authors', "paper" the text; "recalled" was not read again, "assumed" is ours, where nothing is known.
    """

    search: float
    train: int
    known: str

    @property
    def whole(self) -> float:
        """Epochs in all."""
        return self.search + self.train


LENGTHS = {
    "ddpg": Length(0, 150, "assumed"),
    "sigma": Length(0, 150, "assumed"),
    "combined": Length(0, 150, "assumed"),
    "l1": Length(0, 20, "recalled"),
    "weight_sum": Length(0, 150, "assumed"),
    "apoz": Length(0, 60, "assumed"),
    "entropy": Length(0, 40, "assumed"),
    "fpgm": Length(0, 200, "recalled"),
    "bn_gamma": Length(160, 160, "recalled"),
    "hrank": Length(0, 150, "assumed"),
    "taylor_fo": Length(1, 25, "code"),
    "gal": Length(100, 30, "code; what follows the search is assumed"),
    "rbp": Length(130, 100, "assumed"),
    "rbp_joint": Length(130, 100, "assumed"),
    "ssl": Length(100, 50, "assumed"),
    "metapruning": Length(32, 128, "code"),
    "abcpruner": Length(438, 150, "code"),
    "n2n": Length(5000, 50, "code; what follows the search is assumed"),
    "amc": Length(0, 150, "code"),
    "evolution": Length(0, 150, "assumed"),
    "random": Length(0, 150, "assumed"),
    "knapsack": Length(0, 150, "assumed"),
    "penjing": Length(0, 150, "assumed"),
}

TRAINS_ON_THE_WAY = ("gal", "rbp", "rbp_joint", "ssl", "metapruning", "abcpruner", "n2n")
"""Methods whose search trains; at a given length it gets half, whatever share the paper gives it."""


def course(method: str, scale: Scale) -> tuple[float, int]:
    """Return the epochs of a method's search and those after it at a scale.

    >>> from papers.scale import SHORT, FULL
    >>> course("gal", SHORT), course("l1", SHORT), course("abcpruner", FULL)
    ((6, 6), (0, 12), (438, 150))
    """
    length = LENGTHS[method]
    if scale.epochs is None:
        return length.search, length.train
    search = scale.epochs // 2 if method in TRAINS_ON_THE_WAY else 0
    return search, scale.epochs - search


def fraction(method: str, scale: Scale) -> float:
    """Return which share of the paper's length a row of this scale runs."""
    return sum(course(method, scale)) / LENGTHS[method].whole
