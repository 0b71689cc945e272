"""Let the exported file compute in 8-bit whole numbers; the network itself stays as it is, or trains for it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from penjing.core import console
from penjing.core.errors import PlanError, did_you_mean
from penjing.core.registry import build, register
from penjing.exporting.int8 import Int8, quantize
from penjing.exporting.verify import Parity, check_likeness
from penjing.graph.quantized import FORMS, Precision, attach, inputs_of, latent, refuse_quantized, start
from penjing.quantizers.fake_int8 import fake_int8
from penjing.steps.pictures import need_some, told_count
from penjing.steps.state import Run, State
from penjing.steps.train import train
from penjing.training.options import check_values

COMPARED = 256
"""Validation pictures on which the quantized file is held against the network."""

SIZE = 16
"""Pictures of a calibration batch: all activations of one are held at a time."""

ADVICE = (
    "Calibrate on more pictures, try another calibration, keep the first or the last layer in floats, or train for "
    "int8 with epochs."
)

BEGUN = 128
"""Pictures that the ranges of a training begin with."""


@register("step")
@dataclass(frozen=True)
class int8(Int8):  # noqa: N801  (registered under its own name)
    """Let ``export`` write a file in int8, by ONNX Runtime's tools, calibrated on unlabelled training pictures.

    ``images`` are calibrated on. ``tolerance`` is how far outputs of the file may be from the network's: the root mean
    square of the difference as a share, 0.1 being an SQNR of 20 dB. Every accuracy from then on is the file's. With
    ``epochs`` the network trains first, by the step ``train`` at the rate ``lr``, with the file's rounding in it.
    ``export``, ``check`` and ``evaluate`` alone may follow.
    """

    images: int = 512
    tolerance: float = 0.2
    epochs: int = 0
    lr: float = 0.002

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: PlanError or TrainError naming the option.
        """
        super().__post_init__()
        need_some("int8", self.images)
        if not 0 < self.tolerance < 1:
            raise PlanError(f"int8: tolerance is a share of the outputs, between 0 and 1; got {self.tolerance!r}.")
        if isinstance(self.epochs, bool) or self.epochs < 0:
            raise PlanError(f"int8: epochs must be a whole number, 0 or more; got {self.epochs!r}.")
        if self.epochs:
            check_values(self._training)

    @property
    def _training(self) -> train:
        return train(epochs=max(self.epochs, 1), lr=self.lr)

    def __call__(self, state: State, run: Run) -> State:
        """Return the state whose files are quantized from now on, with the network that was trained for it.

        Raises: PlanError without data, for a name in ``keep`` that no layer has, for layers that are quantized
        already, or a target that runs no files.
        """
        data = state.data_for("int8")
        refuse_quantized("int8", state.model)
        runtime = build("runtime", run.runtime[0])
        if not runtime.reads_files:
            raise PlanError(f"int8 quantizes the exported file, and {run.runtime[0]} runs none; take another target.")
        names = [name for name, _ in state.model.named_modules()]
        for name in self.keep:
            if name not in names:
                raise PlanError(f"int8: keep names {name!r}, which is no layer.{did_you_mean(name, names)}")
        with run.stage("int8", f"{self.calibration}, {told_count(self.images, data)}") as said:
            model = self._trained(state, run, said) if self.epochs else state.model
        return replace(state, model=model, files={}, int8=self)

    def _trained(self, state: State, run: Run, said: list[str]) -> nn.Module:
        """Return the network, in floats, after training with what the file will round."""
        model = state.copy_model()
        layers = [name for name, one in model.named_modules() if type(one) in FORMS and not self.keeps(name)]
        if not layers:
            raise PlanError("int8: no nn.Conv2d or nn.Linear is left to train for; leave epochs out.")
        pictures = state.data_for("int8").calibration(min(self.images, BEGUN), run.seed)
        seen = inputs_of(model, layers, pictures, BEGUN)
        fake = Precision(fake_int8(highest=64 if self.narrow else 127), 8)
        attach(model, dict.fromkeys(seen, fake))
        start(model, seen, seen)
        return latent(self._training.trained(replace(state, model=model), run, said))


def write_int8(source: Path, target: Path, state: State, run: Run, said: list[str] | None = None) -> Path:
    """Quantize a float file as the state says, hold it against the network, and write down what came of it.

    With ``said`` it is the run's own file; a reference's is told of nowhere.

    Raises: ParityError where it is too far from the network; PenjingError as ``quantize``.
    """
    how: Any = state.int8
    data, notes = state.data_for("int8"), list[str]()
    made = quantize(source, target, data.calibration(how.images, run.seed, size=SIZE), how, notes)
    if said is None:
        return target
    found = _likeness(state, target, how.tolerance)
    told = f"{len(made.layers)} layers in int8, {len(made.kept)} in floats" if made.kept else "all layers in int8"
    same = "" if found.agree is None else f", {found.agree:.1%} of the answers agree"
    compared = f"{target.name}, {found.samples} pictures: SQNR {found.sqnr:.1f} dB{same}"
    facts = {"name": "torch resembles int8", "difference": found.noise, "tolerance": how.tolerance}
    run.note("certificates", facts | {"ok": True, "detail": compared})
    notes.append(
        f"{target.name} computes in whole numbers of 8 bits ({told}); the accuracies of the result are those of this "
        "file, run by ONNX Runtime."
    )
    run.note("remarks", *notes)
    for note in notes[:-1]:
        console.remark(note)
    run.note("int8", asdict(how) | {"narrow": how.narrow, "layers": list(made.layers), "kept": list(made.kept),
                                    "sqnr": found.sqnr, "agree": found.agree})  # fmt: skip
    said.append(f"{told}, SQNR {found.sqnr:.1f} dB{same}")
    return target


def _likeness(state: State, file: Path, tolerance: float) -> Parity:
    data = state.data_for("int8")
    split = data.val if len(data.val) else data.train
    pictures = (x for x, _ in split.subset(range(min(COMPARED, len(split)))).batches(64))
    return check_likeness(state.model, file, pictures, tolerance, ADVICE)
