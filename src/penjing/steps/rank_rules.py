"""The rules that ranks may be given by, as a recipe writes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from penjing.core.errors import PlanError
from penjing.factors.base import Factorization, Ranks
from penjing.factors.layer import LayerSpec
from penjing.factors.ranks import by_energy, by_evbmf, by_ratio, rounded
from penjing.factors.spectra import Axis

RULES = ("energy", "evbmf", "ratio", "share")
"""What ranks may be given by, beside a number."""

LOOKING = ("energy", "evbmf")
"""The rules that look at what each rank holds."""


@dataclass(frozen=True)
class Rule:
    """How a layer gets its ranks: a rule of ``RULES``, ``full`` or ``number``, and the number that goes with it."""

    name: str
    number: Any = 1.0

    @staticmethod
    def of(ranks: Any) -> Rule:
        """Return what a recipe writes under ``ranks``.

        Raises: PlanError naming what is no rule.
        """
        if isinstance(ranks, str) and ranks in ("full", "evbmf"):
            return Rule(ranks)
        if isinstance(ranks, int) and not isinstance(ranks, bool):
            if ranks < 1:
                raise PlanError(f"factorize: a rank is a whole number, 1 or more; got {ranks}.")
            return Rule("number", ranks)
        if isinstance(ranks, Mapping) and len(ranks) == 1:
            ((name, number),) = ranks.items()
            if name in RULES and isinstance(number, int | float) and not isinstance(number, bool):
                most = 1.0 if name != "ratio" else float("inf")
                if (1 if name == "ratio" else 0) < number <= most or (name == "evbmf" and number == 0):
                    return Rule(str(name), float(number))
                between = "above 1" if name == "ratio" else "above 0 and at most 1"
                raise PlanError(f"factorize: ranks by {name} take a number {between}; got {number}.")
        raise PlanError(
            f"factorize: ranks are a number, full, evbmf, or one of {', '.join(RULES)} with its number, such as "
            f"{{energy: 0.9}}; got {ranks!r}."
        )

    def __call__(self, by: Factorization, spec: LayerSpec, spectra: Callable[[], tuple[Axis, ...]], step: int) -> Ranks:
        """Return a layer's ranks; ``spectra`` are asked for where the rule looks at them.

        What is neither a number nor full is rounded up to a multiple of ``step``.
        """
        full = by.full(spec)
        if self.name == "full":
            return full
        if self.name == "number":
            return tuple(min(int(self.number), most) for most in full)
        if self.name == "share":
            found: Ranks = tuple(max(1, round(self.number * most)) for most in full)
        elif self.name == "ratio":
            found = by_ratio(by, spec, self.number)
        else:
            choose = by_energy if self.name == "energy" else by_evbmf
            found = choose(spectra(), self.number)
        return rounded(found, full, step)
