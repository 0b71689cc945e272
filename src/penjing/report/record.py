"""How a run was made, in words: what the checks claim, how it was taught, what stayed whole, how to make it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from penjing.report import units, words
from penjing.report.results import Certificate, Results

_CLAIMS = {
    "cut equals zeroed": "The cut network computes what the original computes once what was removed is silenced in it",
    "collaborative equals plain": "With maps of 1 the network computes what it computed without collaborative layers",
    "without what is dead it returns the same": "Without what zeros had left dead, the network computes what it did",
    "chains equal their products": "Chains of factors compute what the layers do that they multiply out to",
    "torch equals ONNX": "The saved file computes what the trained network computes",
    "torch resembles int8": "The file in whole numbers computes what the network does, but for rounding",
}

_BY_LOT = (
    "The filters of such a layer differ in size hardly more than filters drawn by lot, so that choosing by size comes "
    "close to choosing by lot."
)


@dataclass(frozen=True)
class Group:
    """Things of which one and the same is said."""

    said: str
    names: tuple[str, ...]
    detail: str = ""


def claim(certificate: Certificate) -> str:
    """Say what a certificate claims, to who has not read how it is made, and what was compared."""
    said = _CLAIMS.get(certificate.name, "")
    compared = f" ({certificate.detail})" if certificate.detail else ""
    return f"{said}{compared}." if said else certificate.detail


def pinned(results: Results) -> list[Group]:
    """Return what stayed whole, all of one reason, line and size together, in the order found."""
    found: dict[tuple[str, str, int], list[str]] = {}
    for one in results.pinned:
        found.setdefault((one.why, one.line, one.units), []).append(one.where)
    return [Group(why, _sized(names, count), line) for (why, line, count), names in found.items()]


def _sized(names: list[str], count: int) -> tuple[str, ...]:
    """Say of the last how many channels it, and each before it, has."""
    size = f"{count:,}{units.GAP}{'channel' if count == 1 else 'channels'}{' each' if len(names) > 1 else ''}"
    return (*names[:-1], f"{names[-1]} ({size})")


def diagnostics(results: Results) -> list[Group]:
    """Return the remarks on layers, all layers of one verdict together; in brackets stand the numbers behind it."""
    found: dict[tuple[str, str], list[str]] = {}
    for one in results.diagnostics:
        numbers = {key: value for key, value in one.items() if key not in ("layer", "verdict")}
        of = f" ({', '.join(plain(value) for value in numbers.values())})" if numbers else ""
        found.setdefault((str(one.get("verdict", "")), ", ".join(numbers)), []).append(f"{one.get('layer')}{of}")
    return [Group(verdict, tuple(names), detail) for (verdict, detail), names in found.items()]


def explained(verdict: str) -> str:
    """Say what a verdict on layers means, where there is more to say."""
    return _BY_LOT if verdict.endswith("carries no information here") else ""


def teaching(results: Results) -> list[str]:
    """Say of each training how it was done."""
    return [_taught(how) for how in results.trained]


def _taught(how: Mapping[str, Any]) -> str:
    epochs = how.get("epochs")
    parts = [f"{plain(epochs)} {'epoch' if epochs == 1 else 'epochs'}"] if epochs is not None else ["Trained"]
    if "lr" in how:
        by = f" ({how['optimizer']})" if "optimizer" in how else ""
        parts.append(f"peak learning rate {how['lr']:g}{by}")
    if "batch" in how:
        parts.append(f"batches of {plain(how['batch'])}")
    if how.get("terms"):
        parts.append(f"taught by {' and '.join(str(term) for term in how['terms'])}")
    if "device" in how:
        parts.append(f"on {how['device']}")
    kept = {"last": "The weights after the last epoch were kept.", "best": "The weights of the best epoch were kept."}
    return f"{', '.join(parts)}. {kept.get(str(how.get('keep')), '')}".strip()


def stops(results: Results) -> str:
    """Say that a run went on after it had been stopped, and where; empty where it ran in one go."""
    if not results.resumed:
        return ""
    where = "; ".join(
        f"{units.moment(one.at)}, {f'after {words.step(one.after)}' if one.after else 'from its first step'}"
        for one in results.resumed
    )
    count = len(results.resumed)
    times = "once" if count == 1 else "twice" if count == 2 else f"{count} times"
    return (
        f"This run was stopped and went on {times} ({where}). What had been done and measured was not done again; its "
        "weights are those of a run that was never stopped."
    )


def pictures(results: Results) -> str:
    """Say what the network learned from and was judged by; empty where a run does not tell."""
    data = results.data
    if data is None:
        return ""
    classes = f", {data.classes:,} classes" if data.classes else ""
    test = f", {results.result.of:,} to test" if results.result.tested else ""
    return f"{data.name}: {data.train:,} pictures to train, {data.val:,} to validate{test}{classes}"


def steps(results: Results) -> str:
    """Return the steps with all their options, defaults among them, one a line."""
    return "\n".join(_step(step) for step in results.steps)


def _step(step: Any) -> str:
    if not isinstance(step, Mapping):
        return f"- {plain(step)}"
    return "\n".join(f"- {name}: {_options(options)}" for name, options in step.items())


def _options(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_options(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_options(one) for one in value) + "]"
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def plain(value: Any) -> str:
    """Return any JSON value as a reader likes it.

    >>> plain(True), plain(12000), plain(0.03125), plain("l1"), plain([1])
    ('yes', '12,000', '0.0312', 'l1', '[1]')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
