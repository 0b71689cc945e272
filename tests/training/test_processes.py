"""Two processes against one; forking takes a second or two a run, so each run shows several things."""

import logging
import os
from dataclasses import replace

import pytest
import torch
from torch import nn

from penjing.core.errors import TrainError
from penjing.terms.distill import soft_targets
from penjing.terms.hints import hints
from penjing.training import processes
from penjing.training.loop import Options, fit

from .toys import Normed, Plain, built, equal, poisoned, toy, weights

ONE = Options(epochs=2, lr=0.1, batch=16, precision="32-true", clip=0.3)
TWO = replace(ONE, devices=2)


class Scale(nn.Module):
    """A term with a parameter that the loss of the batch depends on."""

    def __init__(self):
        super().__init__()
        self.own = nn.Parameter(torch.ones(4))

    def attach(self, model):
        return [self.own]

    def forward(self, x, outputs, y):
        return (self.own * outputs[0]).square().mean()

    def after_step(self):
        pass

    def detach(self):
        pass


class Odd(Plain):
    """Returns a tuple, and has a parameter that never gets a gradient."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.ones(3, 3))

    def forward(self, x):
        logits = super().forward(x)
        return logits, logits * 2


def trained(recipe, split, val=None, rows=None):
    model, term = built(Odd), Scale()
    history = fit(model, split, val, recipe, terms=[term], seed=4, on_epoch=None if rows is None else rows.append)
    return model, term, history


def test_two_processes_equal_one():
    # 37 samples: the last batch has 5, so the processes get 3 and 2 of it.
    split, val, rows = toy(37), toy(30, seed=1), []
    one, one_term, one_history = trained(replace(ONE, keep="best"), split, val)
    environment = dict(os.environ)
    two, two_term, two_history = trained(replace(TWO, keep="best"), split, val, rows)
    for (name, a), (_, b) in zip(one.named_parameters(), two.named_parameters(), strict=True):
        assert (a - b).norm() <= 1e-5 * a.norm(), name
    assert torch.equal(two.unused, torch.ones(3, 3))
    torch.testing.assert_close(one_term.own, two_term.own, rtol=1e-5, atol=0)
    assert (one_term.own != 1).all()
    assert rows == list(two_history.rows)
    for a, b in zip(one_history.rows, two_history.rows, strict=True):
        for key in ("epoch", "lr", "loss", "val_accuracy", "val_loss"):
            assert a[key] == pytest.approx(b[key], rel=1e-5)
    assert two_history.kept == one_history.kept
    assert dict(os.environ) == environment
    assert two.training


def test_two_runs_of_two_processes_are_equal_to_the_bit():
    models = [built(Normed) for _ in range(2)]
    for model in models:
        fit(model, toy(37), None, TWO)
    assert equal(weights(models[0]), weights(models[1]))


def test_running_statistics_are_the_mean_over_the_processes():
    model, split = built(Normed), toy(12)
    fit(model, split, None, replace(TWO, epochs=1, lr=1e-12))
    ((x, _),) = split.batches(16, seed=0, epoch=0, augment=True)
    with torch.no_grad():
        maps = [built(Normed).conv(x[rank::2]).transpose(0, 1).flatten(1) for rank in range(2)]
    mean = sum(m.mean(1) for m in maps) / 2
    variance = sum(m.var(1) for m in maps) / 2
    torch.testing.assert_close(model.bn.running_mean, 0.1 * mean)
    torch.testing.assert_close(model.bn.running_var, 0.9 + 0.1 * variance)
    assert model.bn.num_batches_tracked == 1


def test_threads_that_ran_before_the_fork_do_not_hang_it():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        torch.rand(1500, 1500) @ torch.rand(1500, 1500)
        history = fit(built(Plain), toy(64), None, TWO)
    finally:
        torch.set_num_threads(threads)
    assert len(history.rows) == 2


def test_divergence_comes_back_as_our_error_with_the_good_weights():
    first, second = built(Normed), built(Normed)
    fit(first, toy(), None, replace(TWO, epochs=1, warmup=0.0, lr=1e-30))
    with pytest.raises(TrainError, match=r"epoch 2 at step 5 of 6.*the loss became nan"):
        fit(second, poisoned(toy(), 1, 1), None, replace(TWO, warmup=0.0, lr=1e-30))
    torch.testing.assert_close(weights(first), weights(second))


def test_a_process_that_fails_is_named_in_one_sentence(capfd):
    class Broken(Plain):
        def forward(self, x):
            raise RuntimeError("there is a knot in the hose")

    with pytest.raises(TrainError, match=r"Training in 2 processes failed: .*knot in the hose"):
        fit(built(Broken), toy(), None, TWO)
    assert "Traceback" not in capfd.readouterr().err


def test_many_epochs_do_not_block_the_way_back():
    """The rows of 500 epochs are more than a pipe holds."""
    rows = fit(built(Plain), toy(4), None, replace(TWO, epochs=500, batch=4)).rows
    assert len(str(rows)) > 2**16
    assert rows[-1]["epoch"] == 500


def test_nothing_is_printed(capfd):
    import lightning_fabric  # noqa: F401  (importing it sets its level)

    level = logging.getLogger("lightning_fabric").level
    fit(built(Plain), toy(), toy(), TWO, terms=[soft_targets(), hints()], teacher=built(Plain, seed=1))
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("lightning_fabric").level == level


@pytest.mark.slow
def test_spawned_processes_equal_forked_ones(monkeypatch):
    split = toy(37)
    forked, forked_term, _ = trained(TWO, split)
    fit(taught := built(Plain), split, None, TWO, terms=[hints()], teacher=built(Plain, seed=1))
    monkeypatch.setattr(processes, "_start_method", lambda accelerator: "spawn")
    spawned, spawned_term, _ = trained(TWO, split)
    assert equal(weights(forked), weights(spawned))
    assert torch.equal(forked_term.own, spawned_term.own)
    fit(again := built(Plain), split, None, TWO, terms=[hints()], teacher=built(Plain, seed=1))
    assert equal(weights(taught), weights(again))


def test_more_gpus_than_there_are_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(TrainError, match=r"devices is 2, but PyTorch sees 1 GPU"):
        processes.open_fabric("cuda", 2, "32-true")
