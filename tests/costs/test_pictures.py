"""Networks that are refitted before a trial is judged: as the step does it, and never on what is judged."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from penjing.core.errors import PlanError
from penjing.core.plan import Plan
from penjing.core.registry import build
from penjing.costs.divergence import divergence
from penjing.data import load
from penjing.graph.draft import Draft
from penjing.graph.trace import plain, trace
from penjing.rewrites.perform import perform
from penjing.steps.reconstruct import reconstruct
from penjing.steps.state import Run, State
from penjing.steps.trial import Attempt
from tiny import pictures, skilled

from .drafts import FakeDraft

CHANGES = {"channels": build("rewrite", "channels")}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return load(pictures(tmp_path_factory.mktemp("pictures")), seed=0)


@pytest.fixture(scope="module")
def model():
    return plain(skilled())


def judged(model, data, plan, **options):
    graph = trace(model, (data.example(2),))
    cost = divergence(**options).on(data, seed=3).beside(model)
    return Attempt(model, graph.without_program(), CHANGES, cost)(plan)


def half(model, data):
    sites = trace(model, (data.example(2),)).sites
    return Plan.of("channels", {site.name: np.arange(site.size // 2) for site in sites}, sites)


def test_a_trial_is_refitted_as_the_step_does_it(model, data, tmp_path):
    plan = half(model, data)
    cut = copy.deepcopy(model)
    perform(cut, trace(model, (data.example(2),)), plan, CHANGES)
    state = State(cut, model, data, ((data.example(2),), {}), plans=(plan,))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    after = reconstruct(images=48)(state, Run(tmp_path, seed=3)).model
    torch.set_num_threads(threads)
    by_step = divergence().on(data, seed=3).beside(model)(FakeDraft(net=after))
    assert judged(model, data, plan, reconstruct=48) == by_step
    assert by_step < 0.5 * judged(model, data, plan)


def test_neither_the_network_nor_its_modes_change(model, data):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first = judged(model, data, half(model, data), reconstruct=32, recalibrate=1)
    assert judged(model, data, half(model, data), reconstruct=32, recalibrate=1) == first
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert data.test_reads == 0


def test_what_it_is_refitted_on_is_training_pictures(model, data):
    cost = divergence(reconstruct=24, images=5).on(data, seed=0)
    assert len(cost.samples) == 24 and len(cost.split) == 5
    train, mine = (
        {picture.numpy().tobytes() for x, _ in split.batches(500) for picture in x}
        for split in (data.train, cost.samples)
    )
    assert mine <= train


def test_a_draft_that_knows_no_whole_network_says_so(model, data):
    graph = trace(model, (data.example(2),))
    draft = Draft(graph, Plan(), lambda: copy.deepcopy(model))
    with pytest.raises(PlanError, match=r"no network without it"):
        divergence(reconstruct=24).on(data, seed=0).beside(model)(draft)
