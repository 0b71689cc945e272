import copy
import itertools
import math
import random
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from penjing.core import console
from penjing.core.errors import TrainError
from penjing.terms.distill import soft_targets
from penjing.terms.zeros import hold_zeros
from penjing.training.evaluate import evaluate
from penjing.training.loop import Options, fit
from penjing.training.processes import resolve_precision
from penjing.training.schedule import learning_rate
from penjing.training.session import Session

from .toys import Normed, Plain, ToySplit, built, equal, poisoned, toy, weights

QUICK = Options(epochs=3, lr=0.1, batch=16, precision="32-true")


def test_learns():
    model = built(Normed)
    history = fit(model, toy(200), toy(100, seed=1), replace(QUICK, epochs=6))
    assert history.rows[-1]["val_accuracy"] > 95
    assert history.rows[-1]["loss"] < history.rows[0]["loss"] / 2
    assert evaluate(model, toy(100, seed=1)).accuracy == history.rows[-1]["val_accuracy"]


@pytest.mark.parametrize("channels_last", [False, True])
def test_equals_a_plain_loop_to_the_bit(channels_last):
    recipe = replace(QUICK, label_smoothing=0.1, clip=0.5, channels_last=channels_last)
    split, model, plain = toy(50), built(Plain), built(Plain)
    history = fit(model, split, None, recipe, seed=5)

    if channels_last:
        plain.to(memory_format=torch.channels_last)
    named = dict(plain.named_parameters())
    groups = [
        {"params": [p for p in named.values() if p.ndim > 1], "weight_decay": 5e-4},
        {"params": [p for p in named.values() if p.ndim == 1]},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True)
    step, losses = 0, []
    for epoch in range(3):
        for x, y in split.batches(16, seed=5, epoch=epoch, augment=True):
            if channels_last:
                x = x.contiguous(memory_format=torch.channels_last)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, 12, 0.1, 0.05)
            loss = F.cross_entropy(plain(x), y, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], 0.5)
            optimizer.step()
            losses.append((loss.item(), len(x)))
            step += 1
    assert equal(weights(model), weights(plain))
    last = losses[-4:]
    assert history.rows[-1]["loss"] == pytest.approx(sum(a * n for a, n in last) / 50)
    assert history.rows[-1]["lr"] == learning_rate(11, 12, 0.1, 0.05)


def state_of_chance():
    return torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())


def test_one_seed_gives_one_result_and_disturbs_no_generator():
    runs = []
    for seed in (0, 0, 1):
        model, before = built(Normed), state_of_chance()
        fit(model, toy(), None, QUICK, seed=seed)
        assert state_of_chance() == before
        torch.rand(3)
        runs.append(weights(model))
    assert equal(runs[0], runs[1])
    assert not equal(runs[0], runs[2])


@pytest.mark.parametrize("training", [True, False])
def test_everything_but_the_weights_ends_as_it_was(training):
    model = built(Normed).train(training)
    model.bn.eval()
    model.linear.bias.requires_grad_(False)
    frozen, modes = model.linear.bias.clone(), set()
    model.drop.register_forward_hook(lambda m, x, y: modes.add((m.training, model.bn.training)))
    strides = [tensor.stride() for tensor in model.state_dict().values()]
    parameters = list(map(id, model.parameters()))
    fit(model, toy(), None, QUICK)
    assert modes == {(True, True)}
    assert (model.training, model.bn.training, model.conv.training) == (training, False, training)
    assert [tensor.stride() for tensor in model.state_dict().values()] == strides
    assert list(map(id, model.parameters())) == parameters
    assert torch.equal(model.linear.bias, frozen)
    assert all(p.grad is None for p in model.parameters())


def test_trains_in_channels_last_when_asked():
    seen = []
    for wanted in (True, False):
        model = built(Plain)
        model.conv1.register_forward_hook(
            lambda m, x, y: seen.append((x[0].stride(1), m.weight.stride(1)))  # 1 where the channels come last
        )
        fit(model, toy(16), None, replace(QUICK, epochs=1, channels_last=wanted))
    assert seen == [(1, 1), (36, 9)]


@pytest.mark.parametrize(("samples", "sizes"), [(33, [16, 16]), (34, [2, 16, 16]), (9, [9])])
def test_a_last_batch_counts_unless_it_is_one_sample(samples, sizes):
    model, seen = built(Plain), []
    model.register_forward_pre_hook(lambda m, x: seen.append(len(x[0])))
    fit(model, toy(samples), None, replace(QUICK, epochs=1))
    assert sorted(seen) == sizes


def test_adamw_and_mixed_precision_learn_with_weights_in_float32():
    model, seen = built(Normed), []
    model.linear.register_forward_hook(lambda m, x, y: seen.append(y.dtype) if m.training else None)
    recipe = replace(QUICK, optimizer="adamw", lr=0.02, precision="bf16-mixed", epochs=6)
    history = fit(model, toy(200), toy(100, seed=1), recipe)
    assert set(seen) == {torch.bfloat16}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert history.rows[-1]["val_accuracy"] > 90
    assert history.precision == "bf16-mixed"


def test_precision():
    assert resolve_precision("auto", "cpu") in ("bf16-mixed", "32-true")
    assert resolve_precision("16-mixed", "cuda") == "16-mixed"
    with pytest.raises(TrainError, match="bf16-mixed or 32-true"):
        resolve_precision("16-mixed", "cpu")
    with pytest.raises(TrainError, match="fp8"):
        resolve_precision("fp8", "cpu")


# ------------------------------------------------------------------------------------------- best, rows, progress


def test_keep_best_takes_the_weights_of_the_best_epoch():
    model, seen = built(Normed), []
    recipe = replace(QUICK, epochs=6, lr=0.3, keep="best")
    history = fit(model, toy(40, noise=3), toy(60, seed=1), recipe, on_epoch=lambda row: seen.append(weights(model)))
    scores = [(row["val_accuracy"], -row["val_loss"]) for row in history.rows]
    best = scores.index(max(scores))
    assert best < 5, "this seed must have its best epoch before the last, or the test shows nothing"
    assert history.kept == best + 1
    assert equal(weights(model), seen[best])


def test_rows_are_told_as_they_happen():
    rows, steps = [], []
    model = built(Plain)
    history = fit(
        model,
        toy(330),
        None,
        QUICK,
        on_epoch=rows.append,
        progress=lambda done, total, text: steps.append((done, total)),
    )
    assert rows == list(history.rows)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert {row["val_accuracy"] for row in rows} == {None}
    assert all(row["seconds"] > 0 for row in rows)
    assert steps == [(16, 63), (21, 63), (37, 63), (42, 63), (58, 63), (63, 63)]
    assert history.kept == 3


def test_nothing_is_printed(capfd):
    with console.quiet(False):
        fit(built(Plain), toy(), toy(), QUICK)
    assert capfd.readouterr() == ("", "")


# ----------------------------------------------------------------------------------------------------- divergence


def test_a_loss_that_is_not_finite_goes_back_to_the_start_of_the_epoch():
    model, seen = built(Normed), []
    split = poisoned(toy(320), epoch=1, batch=17)
    with pytest.raises(
        TrainError, match=r"epoch 2 at step 38 of 60, learning rate 0\.0\d+: the loss became nan"
    ) as error:
        fit(model, split, None, QUICK, on_epoch=lambda row: seen.append(weights(model)))
    assert "lr=0.01" in str(error.value)
    assert len(seen) == 1
    assert equal(weights(model), seen[0])
    assert model.training


def test_the_first_batch_points_at_the_data():
    model = built(Normed)
    before = weights(model)
    with pytest.raises(TrainError, match="look for NaN or infinity in the data"):
        fit(model, poisoned(toy(), 0, 0), None, QUICK)
    assert equal(weights(model), before)


def test_an_overflow_is_found_even_in_the_last_step():
    class Steep(Plain):
        def forward(self, x):
            # A finite loss whose gradient overflows.
            return super().forward(x) + (self.linear.bias - self.linear.bias.detach()).mul(1e30).mul(1e30)

    model = built(Steep)
    with pytest.raises(TrainError, match="epoch 1 at step 1"):
        fit(model, toy(16), None, replace(QUICK, epochs=1))
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_a_learning_rate_that_is_too_high_ends_in_advice():
    with pytest.raises(TrainError, match=r"Try lr=1e\+08"):
        fit(built(Plain), toy(200), None, replace(QUICK, lr=1e9, epochs=5))


# ---------------------------------------------------------------------------------------------------------- terms


class Pull(nn.Module):
    """A term that records its life and trains a parameter of its own towards 3."""

    def __init__(self, task_weight=1.0):
        super().__init__()
        self.calls, self.own, self.task_weight = [], nn.Parameter(torch.zeros(2)), task_weight

    def attach(self, model):
        self.calls.append("attach")
        torch.rand(1)
        return [self.own]

    def forward(self, x, outputs, y):
        self.calls.append("call")
        return (self.own - 3).square().sum()

    def after_step(self):
        self.calls.append("after")

    def detach(self):
        self.calls.append("detach")


def test_a_term_is_attached_called_and_detached_and_its_parameters_are_trained():
    term, before = Pull(), torch.get_rng_state()
    fit(built(Plain), toy(48), None, replace(QUICK, epochs=4, lr=0.05), terms=[term])
    assert term.calls == ["attach", *["call", "after"] * 12, "detach"]
    assert (term.own - 3).abs().max() < 1
    assert torch.equal(torch.get_rng_state(), before)


def test_terms_are_detached_after_an_error():
    term = Pull()
    with pytest.raises(TrainError):
        fit(built(Plain), toy(), None, QUICK, terms=[term, soft_targets()])
    assert term.calls == ["attach", "detach"]


def test_going_back_includes_the_terms_parameters():
    term, seen = Pull(), []
    with pytest.raises(TrainError):
        fit(
            built(Plain),
            poisoned(toy(), 1, 2),
            None,
            QUICK,
            terms=[term],
            on_epoch=lambda row: seen.append(term.own.detach().clone()),
        )
    assert torch.equal(term.own, seen[0])


def test_task_weights_multiply():
    """The gradient of the last layer's bias after one step shows the factor."""

    def bias_step(*terms):
        model = built(Plain)
        start = model.linear.bias.detach().clone()
        fit(model, toy(16), None, replace(QUICK, epochs=1, momentum=0.0, weight_decay=0.0), terms=terms)
        return model.linear.bias.detach() - start

    torch.testing.assert_close(bias_step(Pull(0.5), Pull(0.5), Pull()), bias_step() / 4)


def teacher_and_student():
    teacher = built(Normed, seed=1)
    fit(teacher, toy(200), None, QUICK)
    return teacher.train(), built(Normed, seed=2)


def test_distils_without_labels():
    teacher, student = teacher_and_student()
    before = weights(teacher)
    recipe = replace(QUICK, epochs=10)
    fit(student, toy(200, labelled=False), None, recipe, terms=[soft_targets()], teacher=teacher)
    assert evaluate(student, toy(100, seed=1)).accuracy > 90
    assert equal(weights(teacher), before)
    assert teacher.training


def test_full_weight_distillation_ignores_the_labels():
    teacher, student = teacher_and_student()
    other, split = copy.deepcopy(student), toy(64)
    wrong = replace(split, labels=(split.labels + 1) % 4)
    for model, data in ((student, split), (other, wrong)):
        fit(model, data, None, QUICK, terms=[soft_targets(weight=1.0, teacher=teacher)])
    assert equal(weights(student), weights(other))


def test_the_teacher_sees_the_models_own_batch_and_precision():
    teacher, student = teacher_and_student()
    seen = {}
    for name, model in (("teacher", teacher), ("student", student)):
        model.conv.register_forward_hook(
            lambda m, x, y, name=name: seen.setdefault(name, []).append((x[0].clone(), x[0].stride(), y.dtype))
        )
    fit(
        student,
        toy(16),
        None,
        replace(QUICK, epochs=1, precision="bf16-mixed"),
        terms=[soft_targets()],
        teacher=teacher,
    )
    (x, stride, dtype), (own_x, own_stride, own_dtype) = seen["teacher"][0], seen["student"][0]
    assert torch.equal(x, own_x)
    assert stride == own_stride
    assert dtype == own_dtype == torch.bfloat16


def test_zeros_stay_through_best_and_mixed_precision():
    model = built(Normed)
    with torch.no_grad():
        model.conv.weight[:, 1] = 0
    recipe = replace(QUICK, precision="bf16-mixed", keep="best")
    fit(model, toy(64), toy(20), recipe, terms=[hold_zeros()])
    assert torch.equal(
        model.conv.weight == 0,
        torch.zeros_like(model.conv.weight, dtype=torch.bool).index_fill(1, torch.tensor([1]), True),
    )


# --------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("model", "split", "options", "words"),
    [
        (Plain, toy(1), {}, "1 samples"),
        (Plain, toy(0), {}, "0 samples"),
        (Plain, toy(20, labelled=False), {}, "nothing to learn from"),
        (lambda: Normed(classes=3), toy(20), {}, "3 outputs and the labels go up to 3"),
        (lambda: nn.Conv2d(3, 4, 3), toy(20), {}, r"the shape \[16, 4, 4, 4\]"),
        (lambda: Plain().requires_grad_(False), toy(20), {}, "requires_grad"),
        (Plain, toy(20), {"keep": "best"}, "validation"),
        (Plain, toy(20), {"precision": "fp8"}, "fp8"),
        (Plain, toy(20), {"epochs": 0}, "epochs"),
    ],
)
def test_says_what_is_wrong_and_leaves_the_model(model, split, options, words):
    net = built(model)
    before = weights(net)
    with pytest.raises(TrainError, match=words):
        fit(net, split, None, replace(QUICK, **options))
    assert equal(weights(net), before)


def test_a_split_that_gives_other_batches_than_its_length_says_is_refused():
    class Short(ToySplit):
        def batches(self, size, **options):
            return itertools.islice(super().batches(size, **options), 2)

    split = toy(50)
    with pytest.raises(TrainError, match="had 2 batches, not 4"):
        fit(built(Plain), Short(split.x, split.labels), None, QUICK)


def stop(*_):
    raise KeyboardInterrupt


def test_an_interruption_in_the_first_epoch_restores_modes_and_terms():
    term, model = Pull(), built(Normed).eval()
    with pytest.raises(KeyboardInterrupt):
        fit(model, toy(), None, QUICK, terms=[term], progress=stop)
    assert not model.training
    assert term.calls[-1] == "detach"


def test_an_interruption_after_an_epoch_ends_training_with_it():
    model, seen = built(Normed), []

    def after_one(row):
        seen.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        raise KeyboardInterrupt

    history = fit(model, toy(), None, QUICK, on_epoch=after_one)
    assert history.stopped and len(history.rows) == history.kept == len(seen) == 1 < QUICK.epochs
    assert all(torch.equal(tensor, seen[0][name]) for name, tensor in model.state_dict().items())


def test_metrics_of_the_history_are_plain_numbers():
    history = fit(built(Plain), toy(20), toy(20), QUICK)
    assert all(type(value) in (int, float) for row in history.rows for value in row.values())
    assert not any(math.isnan(value) for row in history.rows for value in row.values())


def test_fabric_is_imported_only_when_it_trains():
    code = "import sys, penjing.training.loop, penjing.terms.distill; sys.exit('lightning_fabric' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_model_itself_is_no_teacher_of_fixed_views():
    model = built(Normed)
    with pytest.raises(TrainError, match="the model being trained"):
        fit(model, toy(), toy(), replace(QUICK, views=1), terms=[soft_targets()], teacher=model)


class Segmenting(nn.Module):
    """Give every place of a map two scores."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1)

    def forward(self, x):
        return self.conv(x)


class Masks:
    """Maps of 4 x 4, some of whose places are void, and one batch in which all are."""

    labels = ()

    def __len__(self):
        return 16

    def batches(self, size, *, seed=None, epoch=0, augment=False, start=0):
        generator = torch.Generator().manual_seed(0)
        for i in range(start, 16 // size):
            x = torch.randn(size, 1, 4, 4, generator=generator)
            y = (x[:, 0] > 0).long()
            y[:, 0] = 255
            yield x, torch.full_like(y, 255) if i == 1 else y


@pytest.mark.parametrize("mixup", [0.0, 0.2])
def test_void_places_are_passed_over_blended_or_not(mixup):
    history = fit(Segmenting(), Masks(), None, Options(epochs=2, batch=4, lr=0.1, mixup=mixup, precision="32-true"))
    assert all(math.isfinite(row["loss"]) for row in history.rows)


def test_scaled_losses_have_one_scale_for_every_optimizer_of_a_step():
    mine, theirs, idle = (nn.Parameter(torch.ones(())) for _ in range(3))
    optimizers = [torch.optim.SGD([p], lr=1.0) for p in (mine, theirs, idle)]
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=1)
    scaler.scale(0.25 * (mine + theirs)).backward()
    session = SimpleNamespace(
        fabric=SimpleNamespace(_precision=SimpleNamespace(scaler=scaler)), optimizers=optimizers, steppers=optimizers
    )
    Session._take_steps(session)
    assert (mine.item(), theirs.item(), idle.item()) == (0.75, 0.75, 1.0)
    assert scaler.get_scale() == 8.0
