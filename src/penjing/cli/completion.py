"""What the shell completes, without importing torch: a word must be there before the next key is pressed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from textwrap import shorten

Words = list[tuple[str, str]]


def _starting(words: Mapping[str, str], incomplete: str) -> Words:
    """Return the words that go on from what is written, with what they mean, short enough for one line."""
    return [
        (word, shorten(text, 70, placeholder=" ...")) for word, text in words.items() if word.startswith(incomplete)
    ]


def registered(kind: str) -> Callable[[str], Words]:
    """Return what completes the name of a registered entry."""

    def complete(incomplete: str) -> Words:
        from penjing.core.registry import outline

        return _starting(outline(kind), incomplete)

    return complete


def networks(incomplete: str) -> Words:
    """Complete a network of the zoo."""
    from penjing.zoo import BUILDERS

    return _starting(dict.fromkeys(BUILDERS, ""), incomplete)


def data(incomplete: str) -> Words:
    """Complete the digits, once begun; where nothing is returned, the shell completes files and folders itself."""
    return _starting({"digits": "scikit-learn's handwritten digits"}, incomplete) if incomplete else []


def budget(incomplete: str) -> Words:
    """Complete the name of the cost that a budget bounds last."""
    from penjing.core.registry import outline

    done, comma, last = incomplete.rpartition(",")
    return [(f"{done}{comma}{word}=", text) for word, text in _starting(outline("cost"), last)]


def listed(incomplete: str) -> Words:
    """Complete a kind of ``penjing list``, or the name of anything that it lists."""
    from penjing.core.registry import PLURALS, outline

    kinds = {plural: f"every {kind}" for kind, plural in PLURALS.items()}
    names = {name: text for kind in PLURALS for name, text in outline(kind).items()}
    return _starting(kinds, incomplete) or _starting(names, incomplete)


def target(incomplete: str) -> Words:
    """Complete the name of a preset."""
    from penjing.targets import names

    return _starting(dict.fromkeys(names(), ""), incomplete)


OF_KEYS: dict[str, Callable[[str], Words]] = {
    "model": networks,
    "teacher": networks,
    "data": data,
    "budget": budget,
    "target": target,
}
"""What completes the value of a recipe's key."""
