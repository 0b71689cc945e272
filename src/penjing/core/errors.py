"""The exceptions penjing raises on purpose.

    PenjingError                 catch this to catch them all
    ├── TraceError               the network could not be read
    ├── PlanError                a plan does not fit the network
    ├── BudgetError              a budget is malformed or contradictory
    │   └── Infeasible           well formed, but nothing reaches it; carries the best point found
    │       └── Missed           found out on the exported file, at the end: there are results that show it
    ├── BundleError              a bundle's folder is not what it says
    ├── ResumeError              a run cannot go on from where it stopped
    ├── ParityError              two forms of one model disagree (cut and zeroed, torch and ONNX)
    ├── DataError                a data set cannot be read
    ├── RecipeError              a recipe, an option or a name is wrong
    ├── TrainError               training could not go on (NaN loss, empty loader)
    │   └── Diverged             a loss or weight stopped being finite, though it was at first
    ├── WorkerError              workers were lost, or cannot be had; the run can go on
    └── MissingExtra             an optional library is needed; says how to install it

Every message names the user's own layer, key or file, says what is wrong with numbers, and what to try.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping


class PenjingError(Exception):
    """The root of everything penjing raises on purpose."""


class TraceError(PenjingError):
    """The network could not be read."""


class PlanError(PenjingError):
    """A plan does not fit the network."""


class BudgetError(PenjingError):
    """A budget is malformed or contradictory."""


class Infeasible(BudgetError):
    """A well-formed budget that nothing reaches; ``best`` holds the costs of the nearest point found."""

    def __init__(self, message: str, best: Mapping[str, float] | None = None) -> None:
        super().__init__(message)
        self.best: dict[str, float] = dict(best or {})


class Missed(Infeasible):
    """The exported file was measured and misses the budget."""


class ParityError(PenjingError):
    """Two forms of one model disagree."""


class BundleError(PenjingError):
    """A bundle's folder is not what it says."""


class ResumeError(PenjingError):
    """A run cannot go on from where it stopped."""


class DataError(PenjingError):
    """A data set cannot be read."""


class RecipeError(PenjingError):
    """A recipe, an option or a name is wrong."""


class TrainError(PenjingError):
    """Training could not go on."""


class Diverged(TrainError):
    """Training met a loss or a weight that is not finite; the model is back at the start of that epoch."""


class WorkerError(PenjingError):
    """Workers were lost, or cannot be had."""


class MissingExtra(PenjingError):
    """An optional library is needed."""

    def __init__(self, what: str, library: str, extra: str) -> None:
        super().__init__(f"{what} needs {library}: pip install 'penjing[{extra}]'")
        self._parts = what, library, extra

    def __reduce__(self) -> tuple[type[MissingExtra], tuple[str, str, str]]:
        return type(self), self._parts  # so that it crosses from one process to another


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the closest known word, or the list of known words.

    >>> did_you_mean("taylr", ["l1", "taylor"])
    " Did you mean 'taylor'?"
    """
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else f" Known: {', '.join(known)}."


def reason(error: BaseException) -> str:
    """Return the exception's type and the first line of its message, ending in a full stop.

    >>> reason(ValueError("width 7 is odd"))
    'ValueError: width 7 is odd.'
    """
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].rstrip('.')}." if lines else f"{type(error).__name__}."


LONGEST = 1_000
"""Characters of one sentence; what is longer quotes a user's endless name, and loses its middle."""


def sentence(said: object) -> str:
    r"""Return what an exception or a text says as one line that any terminal shows, whatever names are in it.

    >>> print(sentence("\x1b[31mred.png cannot be read"))
    \x1b[31mred.png cannot be read.
    """
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(str(said).split()))
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
    return text if text.endswith((".", "?", ")")) else f"{text}."
