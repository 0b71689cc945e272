import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from penjing.core.errors import TrainError
from penjing.training.options import Options, check, make_optimizer

from .toys import Normed, built


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"epochs": 0}, "epochs must be a whole number, at least 1"),
        ({"batch": 1}, "batch must be a whole number, at least 2"),
        ({"batch": 3, "devices": 2}, "batch must be a whole number, at least 4"),
        ({"devices": 0}, "devices must be a whole number, at least 1"),
        ({"lr": 0.0}, "lr"),
        ({"lr": math.nan}, "lr"),
        ({"warmup": 1.0}, "warmup"),
        ({"clip": 0.0}, "clip"),
        ({"optimizer": "lion"}, "sgd or adamw, not 'lion'"),
        ({"keep": "first"}, "keep"),
        ({"keep": "best"}, "validation"),
    ],
)
def test_check_names_the_option(change, words):
    with pytest.raises(TrainError, match=words):
        check(replace(Options(), **change), 100, validated=False)


def test_check_counts_samples():
    check(Options(), 2, validated=False)
    with pytest.raises(TrainError, match="1 samples"):
        check(Options(), 1, validated=False)


def test_steps_count_a_last_batch_that_every_device_can_share():
    assert [Options(batch=8).steps(n) for n in (7, 8, 9, 10, 16)] == [1, 1, 1, 2, 2]
    assert [Options(batch=8, devices=2).steps(n) for n in (3, 4, 11, 12)] == [0, 1, 1, 2]


def groups(optimizer):
    return {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_decay_spares_batch_norm_biases_and_the_terms_parameters(name):
    model, extra = built(Normed), nn.Parameter(torch.ones(2, 2))
    decay = groups(make_optimizer(Options(optimizer=name, weight_decay=0.1), model, [extra]))
    named = dict(model.named_parameters())
    assert {n for n, p in named.items() if decay[id(p)] == 0.1} == {"conv.weight", "linear.weight"}
    assert decay[id(extra)] == 0
    decay = groups(make_optimizer(Options(optimizer=name, weight_decay=0.1, decay_norm=True), model, [extra]))
    assert {decay[id(p)] for p in named.values()} == {0.1}
    assert decay[id(extra)] == 0


def test_frozen_parameters_are_left_out():
    model = built(Normed)
    model.conv.requires_grad_(False)
    assert id(model.conv.weight) not in groups(make_optimizer(Options(), model, []))
    with pytest.raises(TrainError, match="requires_grad"):
        make_optimizer(Options(), model.requires_grad_(False), [])


def test_momentum_zero_is_plain_sgd():
    optimizer = make_optimizer(Options(momentum=0.0), built(Normed), [])
    assert not optimizer.param_groups[0]["nesterov"]
