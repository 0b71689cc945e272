"""Other people's exceptions as part of one sentence."""

from __future__ import annotations


def reason(error: BaseException) -> str:
    """Return the exception's type and the first line of its message, ending in a full stop.

    >>> reason(ValueError("width 7 is odd"))
    'ValueError: width 7 is odd.'
    """
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].rstrip('.')}." if lines else f"{type(error).__name__}."
