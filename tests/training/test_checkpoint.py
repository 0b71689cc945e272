"""A training that is stopped and taken up again ends as if nothing had happened."""

import os
import signal
from dataclasses import replace

import pytest
import torch

from penjing.core.errors import PenjingError, ResumeError, TrainError
from penjing.terms.hints import hints
from penjing.training.checkpoint import Checkpoint, optimizer_state, restore_optimizer
from penjing.training.loop import Options, fit
from penjing.training.state import Snapshot

from .toys import Normed, Plain, ToySplit, built, equal, toy, weights

QUICK = Options(epochs=3, lr=0.05, batch=8, precision="32-true", mixup=0.5)
STEPS = 3 * 40


class Stopped(Exception):
    pass


class Stopping:
    """Progress that stops the training once it has gone so far."""

    def __init__(self, after: int) -> None:
        self.after, self.seen = after, []

    def __call__(self, done: int, total: int, text: str) -> None:
        self.seen.append(done)
        if done >= self.after:
            raise Stopped


def train(recipe, kind=Normed, *, path=None, every=16, stop=10**9, teacher=None):
    model = built(kind)
    history = fit(
        model,
        toy(320),
        toy(40),
        recipe,
        seed=3,
        terms=[hints(weight=1.0)] if teacher is not None else [],
        teacher=teacher,
        progress=Stopping(stop),
        checkpoint=Checkpoint(path, every) if path else None,
    )
    return weights(model), history


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("keep", ["last", "best"])
def test_stopped_anywhere_it_ends_the_same(tmp_path, optimizer, keep):
    recipe = replace(QUICK, optimizer=optimizer, keep=keep)
    whole, told = train(recipe)
    path = tmp_path / "training.safetensors"
    for stop in (16, 40, 56, 80, 104, 120):
        with pytest.raises(Stopped):
            train(recipe, path=path, stop=stop)
    broken, again = train(recipe, path=path)
    assert equal(whole, broken)
    untimed = [[{k: v for k, v in row.items() if k != "seconds"} for row in h.rows] for h in (told, again)]
    assert untimed[0] == untimed[1] and told.kept == again.kept


def test_it_goes_on_from_where_it_was(tmp_path):
    path = tmp_path / "training.safetensors"
    with pytest.raises(Stopped):
        train(QUICK, path=path, stop=56)
    watching = Stopping(10**9)
    fit(built(Normed), toy(320), None, QUICK, seed=3, progress=watching, checkpoint=Checkpoint(path, 16))
    assert watching.seen[0] == 40 and watching.seen[-1] == STEPS


def test_terms_go_on_too(tmp_path):
    teacher = built(Normed, seed=5)
    whole, _ = train(QUICK, path=tmp_path / "whole", teacher=teacher)
    with pytest.raises(Stopped):
        train(QUICK, path=tmp_path / "broken", stop=72, teacher=teacher)
    broken, _ = train(QUICK, path=tmp_path / "broken", teacher=teacher)
    assert equal(whole, broken)


class Ending(ToySplit):
    """Fails in its second epoch."""

    def batches(self, size, *, seed=None, epoch=0, augment=False):
        if epoch == 1:
            raise RuntimeError("the disk is gone")
        return super().batches(size, seed=seed, epoch=epoch, augment=augment)


def test_two_processes_go_on_from_an_epochs_end(tmp_path):
    path, two, split = tmp_path / "training.safetensors", replace(QUICK, devices=2, epochs=2), toy(320)
    fit(whole := built(Normed), split, None, two, seed=3)
    with pytest.raises(TrainError, match="the disk is gone"):
        fit(built(Normed), Ending(split.x, split.labels), None, two, seed=3, checkpoint=Checkpoint(path))
    fit(broken := built(Normed), split, None, two, seed=3, checkpoint=Checkpoint(path))
    assert equal(weights(whole), weights(broken))


def test_what_an_optimizer_remembers_of_a_scalar_lies_where_the_scalar_does():
    here, there = (torch.nn.Parameter(torch.zeros((), device=device)) for device in ("cpu", "meta"))
    kept, again = torch.optim.AdamW([here]), torch.optim.AdamW([there])
    here.grad = torch.ones(())
    kept.step()
    restore_optimizer(again, optimizer_state(kept))
    state = again.state[there]
    assert state["exp_avg"].is_meta and state["exp_avg_sq"].is_meta
    assert state["step"].item() == 1, "which stays with the optimiser"


def test_another_networks_checkpoint_is_refused(tmp_path):
    path = tmp_path / "training.safetensors"
    with pytest.raises(Stopped):
        train(QUICK, path=path, stop=56)
    with pytest.raises(ResumeError, match=r"training.safetensors holds the training of another network; remove it"):
        train(QUICK, Plain, path=path)
    path.write_bytes(b"nonsense")
    with pytest.raises(ResumeError, match="is not a training to go on with"):
        train(QUICK, path=path)


def test_a_checkpoint_is_whole_or_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "training.safetensors"
    with pytest.raises(Stopped):
        train(QUICK, path=path, stop=56)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(PenjingError, match=r"training.safetensors cannot be written: No space left on device"):
        train(QUICK, path=path)
    assert path.read_bytes() == before


def test_ctrl_c_while_an_epoch_is_put_aside_leaves_weights_of_one_epoch(monkeypatch):
    ends = []
    model = built(Normed)
    fit(model, toy(320), toy(40), QUICK, seed=3, on_epoch=lambda row: ends.append(weights(model)))
    taken = []
    honest = Snapshot.take

    def take(self):
        taken.append(self)
        if len(taken) == 2:
            self.copies[0].copy_(self._tensors[0])
            os.kill(os.getpid(), signal.SIGINT)
        honest(self)

    monkeypatch.setattr(Snapshot, "take", take)
    stopped, history = train(QUICK)
    assert history.stopped and equal(stopped, ends[len(history.rows) - 1])
