"""Train exits behind inner layers, choose how sure each must be, and keep those that pay."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from penjing.core import console
from penjing.core.errors import PlanError
from penjing.core.registry import register
from penjing.core.units import Floats
from penjing.data.data import Data
from penjing.exporting.early import typical, with_thresholds
from penjing.exporting.measure import ratio
from penjing.exporting.modes import evaluating
from penjing.exporting.onnx import export_onnx
from penjing.exporting.runtimes.subject import Subject
from penjing.graph.exits import Exit, Exiting, Leaving, confidence
from penjing.graph.stages import branches, look
from penjing.graph.trace import trace
from penjing.steps.pictures import need_some
from penjing.steps.state import Run, State
from penjing.steps.thresholds import NEVER, Choice, Costs, choose, outcome
from penjing.steps.train import train
from penjing.terms.self_distillation import self_distillation

ALWAYS, CLOSED = 0.0, 2.0
"""Thresholds at which every picture leaves, and none."""

NOTHING: dict[str, Any] = {"latency": {}, "ratio": None, "measured_on": 0}
"""What is measured of a network without exits."""


@dataclass(frozen=True)
class Told:
    """What a network with exits says of validation pictures, the end of the network last.

    Shapes: sure [exits, pictures], right [exits + 1, pictures].
    """

    sure: Floats
    right: NDArray[np.bool_]
    together: float

    @property
    def accuracies(self) -> list[float]:
        """Return the accuracy of each exit alone, and of the end of the network. Units: %."""
        return [100 * float(one.mean()) for one in self.right]


@register("step")
@dataclass(frozen=True)
class exits(train):  # noqa: N801  (registered under its own name)
    """Train small classifiers behind inner layers, and answer there where they are sure enough.

    The network is trained with the term ``self_distillation``, whose options ``alpha``, ``features``, ``temperature``,
    ``layers`` and ``skip`` are, and its ``lr`` as ``exits_lr``; all other options are those of ``train``, its teaching
    by the original among them. Then each exit's threshold is chosen on validation: of all thresholds whose accuracy is
    at most ``drop`` points below that of the network's own end, those of the lowest average latency, by the latency of
    leaving at each exit, measured on ONNX Runtime. An exit that is not worth asking is taken away again; where none is,
    or the whole turns out no faster on pictures, the network goes on without. What is exported afterwards is one file
    that computes what the picture at hand needs; it takes one at a time. What came of it is measured on ``images``
    validation pictures, one after the other, beside the network alone.

    Raises: PlanError naming an option that cannot be, or a layer that no exit can stand behind.
    Paper: Zhang, Song, Gao, Chen, Bao, Ma, Be Your Own Teacher, ICCV 2019, sections 3 and 4.5.
    Differs: thresholds are chosen by measured latency, jointly, and not one for all.
    """

    alpha: float = self_distillation.alpha
    features: float = self_distillation.features
    temperature: float = self_distillation.temperature
    layers: tuple[str, ...] = ()
    skip: tuple[int, ...] = self_distillation.skip
    exits_lr: float = self_distillation.lr
    drop: float = 0.0
    images: int = 128

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: PlanError naming the option; TrainError for one of the term's.
        """
        if isinstance(self.drop, bool) or not 0 <= self.drop < 100:
            raise PlanError(f"exits: drop is in points of accuracy, 0 or more; got {self.drop}.")
        need_some("exits", self.images)
        self._term().refuse()

    def __call__(self, state: State, run: Run) -> State:
        """Return the state with a network that may answer early, or, where no exit pays, the one trained with them.

        Raises: PlanError naming what cannot be.
        """
        data = self._refuse(state, run)
        with run.stage("exits", f"{self.epochs} epochs") as said:
            term = self._term()
            network = self.trained(state, run, said, term)
            whole = Exiting(network, [_kept(one) for one in term.exits], [CLOSED] * len(term.exits)).eval()
            told = listen(whole, data)
            costs = self._measured(whole, state, run)
            least = math.ceil(int(told.right[-1].sum()) - self.drop / 100 * told.right.shape[1] - 1e-9)
            choice = choose(told.sure, told.right, costs, least)
            model = _with(whole, choice)
            raced = self._raced(network, model, data, state, run)
            if raced["ratio"] is None or raced["ratio"]["median"] <= 1:
                choice, model, raced = outcome(told.sure, told.right, costs, [NEVER] * len(told.sure)), network, NOTHING
            facts = self._told(whole, model, told, costs, choice, state) | raced
            run.note("exits", facts)
            text = outcome_of(facts)
            run.note("remarks", text)
            console.remark(text)
            said.append(f"{sum(facts['shares'][:-1]):.0%} leave early")
        return state.with_model(model)

    def _term(self) -> self_distillation:
        return self_distillation(self.alpha, self.features, self.temperature, self.layers, self.skip, self.exits_lr)

    def _refuse(self, state: State, run: Run) -> Data:
        """Return the data, once it is known that exits can be trained, measured and exported.

        Raises: PlanError.
        """
        data = state.labelled_for("The step exits")
        runtime, _ = run.runtime
        if not run.target.runtime or runtime != "onnxruntime":
            raise PlanError(
                f"exits: a file that stops early is measured on ONNX Runtime alone, and the target is {run.target.name}"
                "; leave the target out, or use the term self_distillation, whose exits go after training."
            )
        if run.batch != 1:
            raise PlanError(
                f"exits: a file that stops early takes one picture at a time; set batch to 1, not {run.batch}."
            )
        args, kwargs = state.example
        if len(args) != 1 or kwargs or not isinstance(args[0], Tensor):
            raise PlanError(
                "exits: the network takes more than one tensor of pictures; exits need one that takes these."
            )
        branches(look(state.model, args[0]), self.layers)
        return data

    def _measured(self, whole: Exiting, state: State, run: Run) -> Costs:
        """Return what leaving at each exit takes on the runtime; the picture does not matter, since none may decide."""
        count = len(whole.exits)
        subjects = {"plain": self._file("plain", whole.network, state, run)}
        every = self._file("every", whole, state, run)
        assert isinstance(every.source, Path)
        for k in range(count + 1):
            thresholds = [CLOSED] * k + [ALWAYS] * (count - k)
            file = with_thresholds(every.source, every.source.with_name(f"exits leave {k}.onnx"), thresholds)
            subjects[f"leave {k}"] = Subject(file, whole, state.example)
        for k in range(count) if count > 1 else ():
            others = _copied(whole, [i for i in range(count) if i != k], [CLOSED] * (count - 1))
            subjects[f"without {k}"] = self._file(f"without {k}", others, state, run)
        times = {
            name: one.median_ms for name, one in run.measure(f"leaving at the exits of {run.at}", subjects).items()
        }
        last = times[f"leave {count}"]
        heads = [max(last - times[f"without {k}" if count > 1 else "plain"], 0.0) for k in range(count)]
        return Costs(tuple(times[f"leave {k}"] for k in range(count + 1)), tuple(heads), times["plain"])

    def _file(self, name: str, model: nn.Module, state: State, run: Run, pictures: Sequence[Tensor] = ()) -> Subject:
        path = run.scratch / f"exits {name}.onnx"
        return Subject(export_onnx(model, *state.example, path, quick=True), model, state.example, tuple(pictures))

    def _told(
        self, whole: Exiting, model: nn.Module, told: Told, costs: Costs, choice: Choice, state: State
    ) -> dict[str, Any]:
        """Return what came of it, as plain data."""
        count = len(whole.exits)
        shares = (np.bincount(choice.at, minlength=count + 1) / told.right.shape[1]).tolist()
        macs = macs_at(whole, state.example[0][0])
        plain = macs_at(Exiting(whole.network, [], []), state.example[0][0])[0]
        own = macs if not isinstance(model, Exiting) else macs_at(model, state.example[0][0])
        used = [threshold != NEVER for threshold in choice.thresholds]
        spent = own[-1] * shares[-1] if any(used) else plain
        if any(used):
            kept = [share for share, one in zip(shares, used, strict=False) if one]
            spent += sum(share * each for share, each in zip(kept, own, strict=False))
        return {
            "exits": [
                {
                    "layer": whole.places[k],
                    "accuracy": told.accuracies[k],
                    "threshold": choice.thresholds[k] if used[k] else None,
                    "share": shares[k],
                    "ms": costs.leave[k],
                    "macs": macs[k],
                }
                for k in range(count)
            ],
            "shares": shares,
            "end": {"accuracy": told.accuracies[-1], "share": shares[-1], "ms": costs.plain, "macs": plain},
            "together": told.together,
            "early": 100 * choice.right / told.right.shape[1],
            "pictures": told.right.shape[1],
            "drop": self.drop,
            "macs": spent,
            "expected_ms": choice.cost,
        }

    def _raced(self, network: nn.Module, model: nn.Module, data: Data, state: State, run: Run) -> dict[str, Any]:
        """Return the latency of stopping early on real pictures, beside that of the network without exits."""
        if not isinstance(model, Exiting):
            return NOTHING
        shown = typical(model, data.val, self.images)
        subjects = {
            "whole": Subject(run.scratch / "exits plain.onnx", network, state.example, tuple(shown)),
            "early": self._file("early", model, state, run, shown),
        }
        timings = run.measure(f"stopping early in {run.at}", subjects)
        told = {
            name: {key: value for key, value in asdict(one).items() if key != "samples"}
            for name, one in timings.items()
        }
        return {
            "latency": told,
            "ratio": asdict(ratio(timings["whole"], timings["early"])),
            "measured_on": len(shown),
        }


def listen(model: Exiting, data: Data) -> Told:
    """Return what all exits say of the validation pictures."""
    sure, right, together = [], [], []
    with evaluating(model):
        for x, y in data.val.batches(256):
            assert y is not None, "the data is labelled"
            every = model.every(x)
            sure.append(torch.stack([confidence(logits) for logits in every[:-1]]))
            right.append(torch.stack([logits.argmax(1) == y for logits in every]))
            together.append(torch.stack(every).mean(0).argmax(1) == y)
    accuracy = 100 * float(torch.cat(together).float().mean())
    return Told(torch.cat(sure, 1).double().numpy(), torch.cat(right, 1).numpy(), accuracy)


def macs_at(model: Exiting, x: Tensor) -> list[float]:
    """Return the multiply-accumulates of a picture that leaves at each exit, and at the end."""
    layers = trace(model, (x,), proof=False).layers
    found = []
    for at in (*range(len(model.exits)), None):
        ran: set[str] = set()
        hooks = [module.register_forward_hook(partial(_note, ran, name)) for name, module in model.named_modules()]
        try:
            with evaluating(model):
                Leaving(model, at)(x)
        finally:
            for hook in hooks:
                hook.remove()
        found.append(float(sum(layer.macs for layer in layers if layer.name in ran)))
    return found


def _note(ran: set[str], name: str, *_: Any) -> None:
    ran.add(name)


def _kept(trained: Exit) -> Exit:
    """Return an exit of ordinary parameters and buffers, on the CPU."""
    made = Exit(trained.branch)
    made.load_state_dict(trained.state_dict())
    return made.eval()


def _copied(whole: Exiting, which: Sequence[int], thresholds: Sequence[float]) -> Exiting:
    return Exiting(whole.network, [whole.heads[k] for k in which], thresholds).eval()


def _with(whole: Exiting, choice: Choice) -> nn.Module:
    """Return a network of its own with the exits that are worth asking; without any, the network alone."""
    used = [k for k, threshold in enumerate(choice.thresholds) if threshold != NEVER]
    if not used:
        return whole.network
    return copy.deepcopy(_copied(whole, used, [choice.thresholds[k] for k in used]))


def outcome_of(facts: Mapping[str, Any]) -> str:
    """Say in words what the exits brought."""
    end = facts["end"]["accuracy"]
    leave = ", ".join(f"{one['share']:.0%} at {one['layer']}" for one in facts["exits"] if one["threshold"] is not None)
    if not leave:
        return (
            f"Exits: none saves time at {end:.2f} % on validation less {facts['drop']:g} points, so the network goes "
            "on without them, trained with them."
        )
    faster = facts["ratio"]
    return (
        f"Exits: of the validation pictures {leave} leave early, with {facts['early']:.2f} % right, {end:.2f} % where "
        f"none does. Measured on {facts['measured_on']} of them, one after the other: {faster['median']:.2f}x as fast "
        f"({faster['low']:.2f} to {faster['high']:.2f}). Latency and MACs of such a network are averages over pictures."
    )
