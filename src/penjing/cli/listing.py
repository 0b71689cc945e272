"""What ``penjing list`` finds and shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from penjing.core.errors import RecipeError, did_you_mean
from penjing.core.registry import PLURALS, Entry, describe

Found = Mapping[str, Sequence[Entry]]


def find(what: str | None) -> Found:
    """Return, by kind, the entries of a kind, those of a name, or all.

    Raises: RecipeError for what is neither a kind nor a name.
    """
    everything = {plural: describe(kind) for kind, plural in PLURALS.items()}
    plural = PLURALS.get(what or "", what)
    if plural is None:
        return everything
    if plural in everything:
        return {plural: everything[plural]}
    named = {kind: [entry for entry in entries if entry.name == what] for kind, entries in everything.items()}
    if not any(named.values()):
        known = {*everything, *(entry.name for entries in everything.values() for entry in entries)}
        hint = did_you_mean(str(what), known)
        kinds = f" The kinds are {', '.join(everything)}."
        raise RecipeError(f"There is nothing called {what!r} to list.{hint if 'mean' in hint else kinds}")
    return {kind: entries for kind, entries in named.items() if entries}


def told(found: Found) -> dict[str, Any]:
    """Return what was found as plain data."""
    return {plural: [asdict(entry) for entry in entries] for plural, entries in found.items()}


def overview(found: Found) -> str:
    """Return a line an entry."""
    width = max(len(entry.name) for entries in found.values() for entry in entries)
    kinds = []
    for plural, entries in found.items():
        lines = [f"  {entry.name:{width}}  {_plain(entry.summary)}" for entry in entries]
        kinds.append("\n".join([f"{plural}:", *lines]))
    return "\n\n".join(kinds)


def in_full(found: Found) -> str:
    """Return all that is known of each entry."""
    singular = {plural: kind for kind, plural in PLURALS.items()}
    return "\n\n".join(
        f"{singular[plural]} {entry.name}\n\n{_plain(entry.doc)}\n\n{_options(entry)}"
        for plural, entries in found.items()
        for entry in entries
    )


def _options(entry: Entry) -> str:
    lines = [f"  {o.name}: {o.type}" + (f" = {o.default}" if o.default else "") for o in entry.options]
    return "\n".join(["Options:", *lines]) if lines else "It takes no options."


def _plain(text: str) -> str:
    return text.replace("``", "'")
