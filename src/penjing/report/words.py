"""What a run showed, in sentences: a difference is claimed only where the intervals do not overlap.

Accuracy carries Wilson's 95 % interval, since a test set is a sample; latency and speed-up carry the intervals that
were measured. MACs, parameters and bytes are counted, so they need none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from penjing.report import units
from penjing.report.results import Bounded, Certificate, Results, Row

ALIKE = "not distinguishable"
_Z95 = 1.959964  # the 97.5 % quantile of the normal distribution

LABELS = {
    "macs": "MACs", "params": "parameters", "size": "file size", "nonzero": "weights not zero",
    "conv_weights": "weights of convolutions not zero",
}  # fmt: skip
UNITS_OF = {
    "macs": "MACs", "params": "parameters", "size": "bytes", "memory": "bytes", "latency": "ms", "error": "%",
    "divergence": "nats", "tuned_error": "%", "conv_weights": "weights",
}  # fmt: skip


@dataclass(frozen=True)
class Tile:
    """One measure before and after; ``tone`` is ``"good"``, ``"bad"`` or ``"even"``."""

    label: str
    before: str
    after: str
    verdict: str
    tone: str


def interval(row: Row) -> tuple[float, float]:
    """Return the 95 % interval of a row's accuracy in percent.

    Paper: Wilson, Probable inference, the law of succession, and statistical inference, 1927.

    >>> low, high = interval(Row("a", 1, 1, 1, wrong=10, of=100))
    >>> round(low, 2), round(high, 2)
    (82.56, 94.48)
    """
    n, right = row.of, 1 - row.wrong / row.of
    weight = _Z95**2 / n
    middle = (right + weight / 2) / (1 + weight)
    reach = math.sqrt(right * (1 - right) * weight + weight**2 / 4) / (1 + weight)
    return 100 * max(middle - reach, 0.0), 100 * min(middle + reach, 1.0)


def overlap(a: tuple[float, float], b: tuple[float, float]) -> bool:
    """Tell whether two closed intervals share a point."""
    return a[0] <= b[1] and b[0] <= a[1]


def alike(a: Row, b: Row) -> bool:
    """Tell whether the accuracies of two rows cannot be told apart."""
    return overlap(interval(a), interval(b))


def speed(results: Results) -> tuple[str, str] | None:
    """Return how the result's speed compares with the original's, and the tone; None where it was not measured."""
    before, after = results.original.latency, results.result.latency
    ratio = results.result.ratio
    if ratio is not None:
        factor, even = ratio.median, ratio.low <= 1 <= ratio.high
    elif before is not None and after is not None:
        factor = before.median_ms / after.median_ms if after.median_ms else math.inf
        even = overlap((before.low_ms, before.high_ms), (after.low_ms, after.high_ms))
    else:
        return None
    if even:
        return ALIKE, "even"
    return (f"{units.times(factor)} faster", "good") if factor > 1 else (f"{units.times(1 / factor)} slower", "bad")


def change(before: float, after: float) -> tuple[str, str]:
    r"""Return a counted change as a factor, or in percent where it is small, and the tone.

    >>> change(400, 100), change(100, 98), change(100, 101), change(7, 7)
    (('4.0× fewer', 'good'), ('2.0\xa0% fewer', 'good'), ('1.0\xa0% more', 'bad'), ('the same', 'even'))
    """
    if before == after:
        return "the same", "even"
    word, tone = ("fewer", "good") if after < before else ("more", "bad")
    small, large = sorted((before, after))
    if small <= 0:
        return f"{word} ({units.scaled(before)} to {units.scaled(after)})", tone
    if large / small >= 1.1:
        return f"{units.times(large / small)} {word}", tone
    return f"{units.significant(100 * abs(after - before) / before, 2)}{units.GAP}% {word}", tone


def mistakes(before: Row, after: Row) -> str:
    """Return the change in test pictures classified wrongly, as a plain count."""
    if not (before.tested and after.tested):
        return "accuracy unknown (there were no test pictures)"
    if before.of != after.of:
        return f"{after.wrong} of {after.of:,} test pictures wrong (before: {before.wrong} of {before.of:,})"
    more = after.wrong - before.wrong
    if more == 0:
        return f"{after.wrong:,} of {after.of:,} test pictures wrong, as before"
    even = f" ({ALIKE})" if alike(before, after) else ""
    return f"{abs(more):,}{units.GAP}{'more' if more > 0 else 'fewer'} of {after.of:,} test pictures wrong{even}"


def _gains(results: Results) -> list[str]:
    before, after = results.original, results.result
    parts = []
    pace = speed(results)
    if pace is not None:
        parts.append("speed not distinguishable from the original's" if pace[0] == ALIKE else pace[0])
    if before.macs != after.macs:
        parts.append(f"{change(before.macs, after.macs)[0]} MACs")
    elif before.size != after.size:
        parts.append(f"{change(before.size, after.size)[0]} bytes on disk")
    else:
        parts.append("as many MACs and bytes as before")
    return parts


def _where(bounds: list[Bounded]) -> str:
    places = list(dict.fromkeys(bound.where for bound in bounds))
    return f"measured on the {places[0]}" if places == ["exported file"] else f"checked on: {', '.join(places)}"


def failed(results: Results) -> list[Certificate]:
    """Return the certificates that did not hold."""
    return [certificate for certificate in results.certificates if not certificate.ok]


def headline(results: Results) -> str:
    """Say in one breath what was gained, what it cost in accuracy, and whether the budget was met."""
    found = ", ".join([*_gains(results), mistakes(results.original, results.result)])
    missed = [bound for bound in results.budget if not bound.kept]
    if missed:
        text = f"Budget missed: {'; '.join(miss(bound) for bound in missed)}. What was reached: {found}"
    elif results.budget:
        text = f"{found}; budget met: {_where(results.budget)}"
    else:
        text = f"{found}; no budget was set"
    text = f"{text[0].upper()}{text[1:]}."
    broken = ", ".join(f"“{certificate.name}”" for certificate in failed(results))
    return f"Do not use this file yet: the check {broken} failed. {text}" if broken else text


def step(name: str) -> str:
    """Return the name that a run gives a step as a reader says it.

    >>> step("02-prune"), step("mine")
    ('step 2, prune', 'step mine')
    """
    number, dash, what = name.partition("-")
    return f"step {int(number)}, {what}" if dash and number.isdecimal() else f"step {name}"


def title(results: Results) -> str:
    """Say in the few words that a tab or a list of files shows which network this is, and how it went."""
    missed = any(not bound.kept for bound in results.budget)
    verdict = ["budget missed"] if missed else ["budget met"] if results.budget else []
    verdict = ["a check failed"] if failed(results) else verdict
    return f"{results.name}: {', '.join([*_gains(results), *verdict])}"


def miss(bound: Bounded) -> str:
    """Say by how much one bound is missed."""
    measured, limit = units.apart(bound.measured, bound.limit, bound.unit)
    text = f"{LABELS.get(bound.cost, bound.cost)} {measured} measured, {limit} allowed"
    if bound.measured <= bound.limit:
        return f"{text}, yet the run did not accept it"
    return f"{text} ({excess(bound)})" if bound.limit > 0 else text


def excess(bound: Bounded) -> str:
    """Return how far a bound is missed or undercut, in percent of the limit; an error, in points."""
    if bound.unit == "%":
        points = bound.measured - bound.limit
        if points == 0:
            return "exactly the limit"
        return f"{units.significant(abs(points), 2)} points {'over' if points > 0 else 'under'}"
    over = 100 * (bound.measured / bound.limit - 1) if bound.limit > 0 else math.nan
    if not math.isfinite(over):
        return ""
    if over == 0:
        return "exactly the limit"
    return f"{units.significant(abs(over), 2)}{units.GAP}% {'over' if over > 0 else 'under'}"


def asked(text: str, unit: str = "") -> str:
    """Return a bound as the user wrote it, in words.

    >>> asked("0.6x"), asked("+0.5", "%"), asked("+0", "%"), asked("2.5 ms")
    ('0.6 × the original', '0.5 points above the original', 'no more than the original', '2.5 ms')
    """
    try:
        if text.endswith(("x", "X", "×")):
            return f"{float(text[:-1]):g} × the original"
        if text.startswith("+"):
            more = float(text[1:])
            return f"{more:g}{' points' * (unit == '%')} above the original" if more else "no more than the original"
    except ValueError:
        return text
    return text


def lowest(results: Results) -> list[str]:
    """Say what the smallest plan would have cost, for each step of widths that was looked at."""
    lines = []
    for low in results.lowest:
        steps = f" in steps of {low.step}" if low.step > 1 else ""
        costs = []
        for cost, value in low.costs.items():
            unit = UNITS_OF.get(cost, "")
            label = LABELS.get(cost, cost)
            costs.append(units.quantity(value, unit) if unit == label else f"{label} {units.quantity(value, unit)}")
        lines.append(f"Lowest that a cut could reach{steps}: {', '.join(costs)}.")
    return lines


def bound_notes(results: Results) -> list[str]:
    """Return what a reader should know before trusting a latency that lies close to its limit."""
    latency = results.result.latency
    notes = []
    for bound in results.budget:
        if bound.cost == "latency" and bound.kept and latency is not None and latency.high_ms > bound.limit:
            slow, limit = units.apart(latency.high_ms, bound.limit, "ms")
            notes.append(f"The limit holds for the median; the slow end of the measurements is {slow}, above {limit}.")
    return notes


def tiles(results: Results) -> list[Tile]:
    """Return the measures that go on top of the page."""
    before, after = results.original, results.result
    found = []
    pace = speed(results)
    if pace is not None and before.latency is not None and after.latency is not None:
        first, second = units.apart(before.latency.median_ms, after.latency.median_ms, "ms")
        found.append(Tile("Latency", first, second, *pace))
    for label, first_count, last_count in (
        ("MACs", before.macs, after.macs),
        ("Parameters", before.params, after.params),
    ):
        counts = units.scaled(first_count), units.scaled(last_count)
        found.append(Tile(label, *counts, *change(first_count, last_count)))
    verdict, tone = change(before.size, after.size)
    words = verdict.replace("fewer", "smaller").replace("more", "larger")
    found.append(Tile("File size", units.size(before.size), units.size(after.size), words, tone))
    if before.tested and after.tested:
        verdict, tone = accuracy_verdict(after, before)
        found.append(Tile("Accuracy", units.percent(before.accuracy), units.percent(after.accuracy), verdict, tone))
    return found


def accuracy_verdict(row: Row, other: Row) -> tuple[str, str]:
    """Return how the accuracy of ``row`` compares with that of ``other``, and the tone."""
    if alike(row, other):
        return ALIKE, "even"
    points = row.accuracy - other.accuracy
    word, tone = ("higher", "good") if points > 0 else ("lower", "bad")
    return f"{units.significant(abs(points), 2)} points {word}", tone


def comparisons(results: Results) -> list[str]:
    """Compare the accuracy of the result with the original and each reference."""
    result = results.result
    lines = []
    for other in [results.original, *results.references] if results.tested else []:
        ours, theirs = interval(result), interval(other)
        verdict, _ = accuracy_verdict(result, other)
        reason = "do not overlap" if verdict != ALIKE else "overlap"
        lines.append(
            f"Against “{other.name}”: {units.percent(result.accuracy)} and {units.percent(other.accuracy)}: {verdict} "
            f"(intervals {_span(ours)} and {_span(theirs)} {reason})."
        )
    if results.references and results.tested and all(alike(result, other) for other in results.references):
        lines.append(
            f"On {result.of:,} test pictures the result is {ALIKE} from any reference, so this run alone does not show "
            "that choosing what to remove made a difference."
        )
    return lines


def predictions(results: Results) -> list[str]:
    """Say what the file of a measured target had predicted, beside what was measured."""
    lines = []
    for row in (results.original, results.result):
        best = row.latency.best_ms if row.latency else None
        if row.predicted_ms and best:
            ours, theirs = units.apart(row.predicted_ms, best, "ms")
            off = f"{100 * (row.predicted_ms / best - 1):+.1f}{units.GAP}%"
            lines.append(f"By the target's file “{row.name}” takes {ours} at best; measured: {theirs} ({off}).")
    return lines


def _span(ends: tuple[float, float]) -> str:
    return f"{ends[0]:.1f}–{ends[1]:.1f}{units.GAP}%"


def reads(results: Results) -> str:
    """Say how often the test pictures were looked at."""
    if not results.tested:
        return "There were no test pictures."
    if results.test_reads < 1:
        return "The run did not record the use of its test pictures."
    if results.test_reads <= len(results.rows):
        return "Each network saw the test pictures once, at the very end; no choice depended on them."
    return (
        f"The test pictures were used {results.test_reads} times; choices made in between may have adapted to them, "
        "so the accuracies can be too kind."
    )


def conditions(results: Results) -> str:
    """Say under what conditions latency was measured."""
    timed = [row.latency for row in results.rows if row.latency is not None]
    under = f"Under an accuracy: its 95{units.GAP}% interval. " if results.tested else ""
    if not timed:
        return f"{under}Latency was not measured."
    found = {(latency.runtime, latency.threads, latency.batch) for latency in timed}
    described = "; ".join(
        f"{runtime}, {threads} {'thread' if threads == 1 else 'threads'}, batch of {batch}"
        for runtime, threads, batch in sorted(found)
    )
    unequal = " The rows were not measured alike, so compare their latencies with care." if len(found) > 1 else ""
    spread = f"the span that holds the middle 80{units.GAP}% of them"
    return f"{under}Latency: the median of many runs, and under it {spread} ({described}).{unequal}"
