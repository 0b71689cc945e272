"""Where the time goes, layer by layer, before and after, and why a layer did not become faster by as much as hoped.

On a runtime the time of a layer is its share of the runtime's own profile, scaled so that all of them add up to the
measured latency. On a model of hardware it is the layer's row of the estimate.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from penjing.core.errors import PenjingError
from penjing.core.layers import Layer
from penjing.core.units import Ints
from penjing.costs.notation import written
from penjing.costs.probe import IMAGE_CHANNELS, Shape
from penjing.exporting.measure import Timing, profile
from penjing.exporting.runtimes.subject import LayerTime, Subject
from penjing.graph.draft import Draft
from penjing.graph.quantized import FLOAT
from penjing.steps import between, few_bits
from penjing.steps.causes import UNKNOWN, find
from penjing.steps.on_average import averaged, leaves_early
from penjing.steps.price import timed
from penjing.steps.sides import ALIGNED, SMALL, Finding, Pair, Setting, Side, slow
from penjing.steps.state import Run, State

SECONDS = 4.0
"""How long single layers are timed for predictions, and then again for remedies; what lost most time comes first."""

MOST = 24
"""Slow layers that are looked into."""

NOISE, MOST_NOISE = 0.1, 0.2
"""Two measured times that differ by less count as equal, and more is not put down to the spread."""

MODELLED_NOISE = 0.02


def spending(
    state: State, run: Run, drafts: tuple[Draft, Draft], files: tuple[Path, Path], timings: tuple[Timing, Timing]
) -> dict[str, Any]:
    """Return where the time goes in the original and in the result, in that order in each pair, as plain data."""

    def told() -> dict[str, Any]:
        if not run.target.runtime:
            return _modelled(run, drafts)
        subjects = [
            Subject(file, model, state.example)
            for file, model in zip(files, (state.original, state.model), strict=True)
        ]
        return _measured(run, drafts, subjects, timings)

    found: dict[str, Any] = run.journal.recall("where the time goes", told)
    return found


# --------------------------------------------------------------------------------------------------- on a runtime


def _measured(
    run: Run, drafts: tuple[Draft, Draft], subjects: Sequence[Subject], timings: tuple[Timing, Timing]
) -> dict[str, Any]:
    runtime, *_, precision = timings[0].runtime.split()
    if leaves_early(subjects[1].model):
        totals = [timing.median_ms for timing in timings]
        why = "Which layers run depends on the picture, so that no times of layers are told"
        whole = _whole(drafts, runtime, totals, why)
        return whole | {"after_macs": averaged({}, subjects[1].model, run).get("macs", whole["after_macs"])}
    how: dict[str, Any] = {"threads": run.threads, "batch": run.batch, "runtime": runtime, "precision": precision}
    try:
        profiles = [profile(subject, **how) for subject in subjects]
    except PenjingError as error:
        said = few_bits.find(drafts[1].layers, runtime)
        totals = [timing.median_ms for timing in timings]
        return _whole(drafts, runtime, totals, str(error)) | {"findings": [asdict(one) for one in said]}
    scales = [
        timing.median_ms / (sum(row.ms for row in rows) or math.inf)
        for timing, rows in zip(timings, profiles, strict=True)
    ]
    times = [
        _of_layers(draft, rows, scale) for draft, rows, scale in zip(drafts, profiles, scales, strict=True)
    ]  # fmt: skip
    after = timings[1]
    predictor = Timed(run)
    setting = Setting(
        name=runtime,
        predict=predictor,
        total=after.median_ms,
        batch=run.batch,
        noise=min(max(NOISE, (after.high_ms - after.low_ms) / after.median_ms), MOST_NOISE),
    )
    pairs = _pairs(drafts, *([Side(layer, ms, kernel=kernel) for layer, ms, kernel in one] for one in times))
    totals = [timing.median_ms for timing in timings]
    found = slow(_beside_wholes(pairs), setting)
    findings = _looked_into(found, setting, predictor)
    predictor.until = time.monotonic() + SECONDS
    pairs = _with_predictions(pairs, predictor, run.batch, totals)
    others: dict[str, list[float]] = {}
    for i, (draft, rows, scale) in enumerate(zip(drafts, profiles, scales, strict=True)):
        names = {layer.name for layer in draft.layers}
        for row in rows:
            if row.name not in names:
                others.setdefault(row.operator, [0.0, 0.0])[i] += scale * row.ms
    said = _with_few_bits(findings, few_bits.find(drafts[1].layers, runtime))
    rounded = any(layer.input_bits < FLOAT for layer in drafts[1].layers)
    said += between.find(profiles[1], scales[1], runtime, _odd(pairs), rounded=rounded)
    facts = _facts(drafts, runtime, pairs, others, totals, setting, said)
    return facts | {"how": "measured", "note": _left(len(found), len(findings))}


def _looked_into(pairs: Sequence[Pair], setting: Setting, predict: Timed) -> list[Finding]:
    """Return the causes of slow layers, the slowest first, while there are seconds left."""
    findings: list[Finding] = []
    for pair in pairs[:MOST]:
        alone = [None if one is None else predict(one.layer, setting.batch) for one in (pair.before, pair.after)]
        sides = [one and replace(one, alone=ms) for one, ms in zip((pair.before, pair.after), alone, strict=True)]
        finding = find(Pair(pair.name, *sides), setting)
        if finding.cause == UNKNOWN and predict.over:  # what was not timed may have told
            break
        findings.append(finding)
    return findings


def _with_few_bits(findings: Sequence[Finding], few: Sequence[Finding]) -> list[Finding]:
    """Add what is found of layers in few bits, in place of no cause."""
    explained = {one.where for one in few}
    return [*(one for one in findings if one.cause != UNKNOWN or one.where not in explained), *few]


def _left(slow: int, looked_into: int) -> str:
    """Say how many slow layers were not looked into."""
    if slow == looked_into:
        return ""
    return f"Of {slow} layers that are slow for their work, the {looked_into} that lose most were looked into."


def _odd(pairs: Sequence[Pair]) -> set[str]:
    """Return the names of layers with a count of channels that leaves the blocked path."""
    layers = [pair.after.layer for pair in pairs if pair.after]
    return {
        layer.name
        for layer in layers
        if layer.out_channels % ALIGNED or (layer.in_channels > IMAGE_CHANNELS and layer.in_channels % ALIGNED)
    }


def _of_layers(draft: Draft, rows: Sequence[LayerTime], scale: float) -> list[tuple[Layer, float, str]]:
    """Return the time and the kernel of each layer that a profile tells of; that of a layer run twice is divided."""
    found: dict[str, list[LayerTime]] = {}
    for row in rows:
        found.setdefault(row.name, []).append(row)
    runs = Counter(layer.name for layer in draft.layers)
    work = Counter[str]()
    for layer in draft.layers:
        work[layer.name] += layer.macs
    told = []
    for layer in draft.layers:
        mine = found.get(layer.name, [])
        share = layer.macs / work[layer.name] if work[layer.name] else 1 / runs[layer.name]
        if mine:
            told.append((layer, scale * share * sum(row.ms for row in mine), mine[-1].kernel))
    return told


class Timed:
    """Predicts the time of a layer by timing one like it, while there are seconds left; None from then on."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.known: dict[tuple[Shape, int], float] = {}
        self.until = time.monotonic() + SECONDS

    @property
    def over(self) -> bool:
        """Whether the seconds are spent."""
        return time.monotonic() >= self.until

    def __call__(self, layer: Layer, batch: int) -> float | None:
        """Return the ms of a layer for so many samples."""
        shape = Shape.of(layer)
        if not (shape.in_channels and shape.out_channels):
            return 0.0
        if (shape, batch) not in self.known:
            if self.over:
                return None
            self.known[shape, batch] = timed(self.run, shape, batch)
        return self.known[shape, batch]


def _with_predictions(pairs: list[Pair], predict: Timed, batch: int, totals: Sequence[float]) -> list[Pair]:
    """Add what each cut layer is predicted to take, the slowest first; in sum the original takes what it took."""

    def alone(side: Side | None, total: float) -> float | None:
        return predict(side.layer, batch) if side is not None and side.ms >= SMALL * total else None

    order = sorted((i for i, pair in enumerate(pairs) if not _uncut(pair)), key=lambda i: -pairs[i].lost)
    times = {i: (alone(pairs[i].before, totals[0]), alone(pairs[i].after, totals[1])) for i in order}
    known = [(before.ms, times[i][0]) for i in order if (before := pairs[i].before) and times[i][0]]
    predicted = sum(ms or 0.0 for _, ms in known)
    scale = sum(ms for ms, _ in known) / predicted if predicted else 1.0

    def scaled(side: Side | None, ms: float | None) -> Side | None:
        return side if side is None or not ms else replace(side, alone=scale * ms)

    return [
        replace(pair, before=scaled(pair.before, times[i][0]), after=scaled(pair.after, times[i][1]))
        if i in times
        else pair
        for i, pair in enumerate(pairs)
    ]


def _uncut(pair: Pair) -> bool:
    return pair.before is not None and pair.after is not None and pair.before.work == pair.after.work


def _narrower(pair: Pair) -> bool:
    """Tell whether a layer is in fewer bits, which a model of hardware prices."""
    return pair.before is not None and pair.after is not None and pair.after.layer.bits < pair.before.layer.bits


# ------------------------------------------------------------------------------------------------------ by a model


def _modelled(run: Run, drafts: tuple[Draft, Draft]) -> dict[str, Any]:
    target: Any = run.target
    estimates = [target.estimate(draft) for draft in drafts]
    at = cache(lambda batch: target.at(batch=batch))

    def predict(layer: Layer, batch: int) -> float | None:
        alone: Any = SimpleNamespace(layers=[layer], passes=(), parameters=0, peak_elements=0)
        try:
            return float(at(batch).estimate(alone).latency_ms)
        except PenjingError:  # no tile of such a layer fits
            return None

    sides: list[list[Side]] = []
    others: dict[str, list[float]] = {}
    for i, (draft, estimate) in enumerate(zip(drafts, estimates, strict=True)):
        count = len(draft.layers)
        sides.append(
            [
                Side(layer, row.latency_ms, row.latency_ms, row.energy_mj, row.bound, row.utilisation)
                for layer, row in zip(draft.layers, estimate.rows[:count], strict=True)
            ]
        )
        for row, one in zip(estimate.rows[count:], draft.passes, strict=True):
            others.setdefault(one.operator, [0.0, 0.0])[i] += row.latency_ms
    totals = [estimate.latency_ms for estimate in estimates]
    setting = Setting(
        name=target.name,
        predict=predict,
        total=totals[1],
        batch=target.batch,
        noise=MODELLED_NOISE,
        modelled=True,
        skips=target.zeros == "skipped",
        array_depthwise=target.depthwise == "array",
    )
    pairs = _pairs(drafts, *sides)
    found = slow(_beside_wholes(pairs), setting)
    few = few_bits.find_modelled(drafts[1].layers, [side.bound for side in sides[1]], target.name)
    said = _with_few_bits([find(one, setting) for one in found[:MOST]], few)
    facts = _facts(drafts, target.name, pairs, others, totals, setting, said)
    return facts | {"how": "modelled", "note": _left(len(found), len(found[:MOST]))}


# ----------------------------------------------------------------------------------------------------- what is told


def _pairs(drafts: tuple[Draft, Draft], before: Iterable[Side], after: Iterable[Side]) -> list[Pair]:
    """Return the layers in the order of execution, each with the one of its name on the other side."""
    first, second = _by_name(drafts[0], before), _by_name(drafts[1], after)
    return [Pair(name, first.get(name), second.get(name)) for name in {**first, **second}]


def _beside_wholes(pairs: Sequence[Pair]) -> list[Pair]:
    """Return the pairs, each stage of a chain beside its share of the layer that the chain took the place of."""
    gone = {pair.name: pair.before for pair in pairs if pair.before and pair.after is None}
    stages: dict[str, list[tuple[str, Side]]] = {}
    for pair in pairs:
        whole = next((name for name in gone if pair.name.startswith(f"{name}.")), None)
        if whole is not None and pair.before is None and pair.after is not None:
            stages.setdefault(whole, []).append((pair.name, pair.after))
    held: dict[str, Pair] = {}
    for name, chain in stages.items():
        before, work = gone[name], sum(side.work for _, side in chain)
        for stage, side in chain:
            share = side.work / work if work else 0.0
            part = replace(before.layer, density=before.layer.density * share)
            held[stage] = Pair(stage, replace(before, layer=part, ms=before.ms * share), side)
    return [held.get(pair.name, pair) for pair in pairs]


def _by_name(draft: Draft, sides: Iterable[Side]) -> dict[str, Side]:
    """Return layers by name, with what of each has to stay; the second time that one runs bears a number."""
    seen: Counter[str] = Counter()
    found = {}

    def fixed(units: Ints) -> bool:
        return not draft.graph.sites_with([units])

    for side in sides:
        name = side.layer.name
        seen[name] += 1
        reads, writes = fixed(side.layer.in_units), fixed(side.layer.out_units)
        held = replace(side, reads_fixed=reads, writes_fixed=writes)
        found[name if seen[name] == 1 else f"{name} #{seen[name]}"] = held
    return found


def _facts(
    drafts: tuple[Draft, Draft],
    name: str,
    pairs: Sequence[Pair],
    others: Mapping[str, Sequence[float]],
    totals: Sequence[float],
    setting: Setting,
    findings: Sequence[Finding],
) -> dict[str, Any]:
    return _head(drafts, name, totals) | {
        "noise": setting.noise,
        "uncut": [pair.name for pair in pairs if _uncut(pair) and not (setting.modelled and _narrower(pair))],
        "layers": [_row(pair, setting) for pair in pairs],
        "others": [
            {"operator": operator, "kind": between.kind(operator), "before_ms": before, "after_ms": after}
            for operator, (before, after) in others.items()
        ],
        "findings": [asdict(one) for one in findings],
    }


def _head(drafts: tuple[Draft, Draft], name: str, totals: Sequence[float]) -> dict[str, Any]:
    macs = [sum(layer.macs for layer in draft.layers) for draft in drafts]
    return {"on": name, "before_ms": totals[0], "after_ms": totals[1], "before_macs": macs[0], "after_macs": macs[1]}


def _whole(drafts: tuple[Draft, Draft], name: str, totals: Sequence[float], why: str) -> dict[str, Any]:
    """Return what is known where a runtime tells no times of layers."""
    nothing: dict[str, Any] = {"uncut": [], "layers": [], "others": [], "findings": []}
    return _head(drafts, name, totals) | {"noise": NOISE, "note": why, "how": "whole"} | nothing


def _row(pair: Pair, setting: Setting) -> dict[str, Any]:
    layer = pair.after or pair.before
    assert layer is not None
    return {
        "name": pair.name,
        "kind": layer.layer.kind,
        "before": pair.before and _told(pair.before, setting),
        "after": pair.after and _told(pair.after, setting),
        "lost_ms": pair.lost,
    }


def _told(side: Side, setting: Setting) -> dict[str, Any]:
    layer = side.layer
    return {
        "shape": written(Shape.of(layer)),
        "in_channels": layer.in_channels,
        "out_channels": layer.out_channels,
        "groups": layer.groups,
        "kernel": list(layer.kernel),
        "positions": layer.positions,
        "macs": layer.macs,
        "density": layer.density,
        "bits": layer.bits,
        "input_bits": layer.input_bits,
        "measured_ms": None if setting.modelled else side.ms,
        "predicted_ms": side.alone,
        "energy_mj": side.energy_mj,
        "bound": side.bound,
        "utilisation": side.utilisation,
    }
