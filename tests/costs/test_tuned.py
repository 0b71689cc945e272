"""The error after a short training: that it trains, on what, always alike, and what it leaves alone."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from penjing.core.errors import RecipeError, TrainError
from penjing.core.protocols import Compared, Measured
from penjing.costs import tuned
from penjing.costs.error import error
from penjing.costs.tuned import tuned_error
from penjing.data import digits
from penjing.training.loop import History

from .drafts import FakeDraft


class Fresh(FakeDraft):
    """A draft that builds a network anew each time, and keeps the last."""

    last: nn.Module

    def model(self) -> nn.Module:
        self.last = copy.deepcopy(super().model())
        return self.last


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def cost(**options: Any) -> tuned_error:
    return tuned_error(**{"lr": 0.05, **options}).on(digits(), seed=0)


def test_it_trains_before_it_measures_and_never_reads_test() -> None:
    data, draft = digits(), Fresh(net=net())
    before = error().on(data, seed=0)(draft)
    longer = [tuned_error(epochs=n, lr=0.05).on(data, seed=0)(draft) for n in (1, 3)]
    assert before > 80 > longer[0] > 10 + longer[1]
    assert data.test_reads == 0


def test_the_same_plan_gives_the_same_number_whatever_the_generators_are() -> None:
    draft, mine = Fresh(net=nn.Sequential(nn.Dropout(), net())), cost(epochs=1)
    first, weights = mine(draft), copy.deepcopy(draft.last.state_dict())
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert mine(draft) == first and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(weights[name], value) for name, value in draft.last.state_dict().items())


def test_it_trains_on_as_many_pictures_as_it_is_told() -> None:
    few = cost(train_images=100)
    counts = np.bincount(np.asarray(few.train.labels))
    assert len(few.train) == 100 and counts.min() == counts.max() == 10
    assert len(cost().train) == len(digits().train)
    with pytest.raises(TrainError, match=r"nothing to train on|batch needs at least"):
        tuned_error(train_batch=4).on(EMPTY, seed=0)


class _Empty:
    """Data of which train has one picture."""

    def __init__(self) -> None:
        self.train, self.val = digits().train.subset([0]), digits().val


EMPTY: Any = _Empty()


def test_zeros_of_the_plan_stay_zero() -> None:
    model = net()
    with torch.no_grad():
        model[1].weight[:, :20] = 0
    for nonzero, held in ((450, True), (650, False)):
        draft = Fresh(net=model, parameters=650, nonzero=nonzero)
        cost(epochs=1)(draft)
        assert bool((draft.last[1].weight[:, :20] == 0).all()) is held


def test_the_original_teaches_where_a_term_asks_for_it() -> None:
    original = net()
    assert cost().beside(original).teacher is None
    taught = cost(epochs=1, terms=["soft_targets"]).beside(original)
    assert taught.teacher is original and isinstance(taught, Compared) and isinstance(taught, Measured)
    draft, alone = Fresh(net=net()), Fresh(net=net())
    taught(draft), cost(epochs=1)(alone)
    assert not torch.equal(draft.last[1].weight, alone.last[1].weight)


def test_a_training_that_diverges_is_judged_and_does_not_end_the_search() -> None:
    deep = nn.Sequential(nn.Flatten(), *(nn.Linear(64, 64) for _ in range(6)), nn.Linear(64, 10))
    mine = cost(lr=1e6)
    with pytest.raises(TrainError, match="diverged"):
        tuned.fit(copy.deepcopy(deep), mine.train, None, mine._recipe)
    assert 0 <= mine(Fresh(net=deep)) <= 100


def test_ctrl_c_ends_the_search_and_not_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training would take it as its end, and half a training would be filed as the value of the plan."""
    monkeypatch.setattr(tuned, "fit", lambda *args, **more: History((), 1, "32-true", "cpu", stopped=True))
    with pytest.raises(KeyboardInterrupt):
        cost()(Fresh(net=net()))


def test_batch_norm_is_refreshed_after_the_training() -> None:
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), net()[1])
    mine, draft = cost(epochs=1, recalibrate=1, batch=50), Fresh(net=model)
    mine(draft)
    x, _ = next(iter(mine.calibration.batches(50)))
    torch.testing.assert_close(draft.last[1].running_mean, x.flatten(1).mean(0))


def test_what_is_missing_or_wrong_is_named() -> None:
    with pytest.raises(RecipeError, match=r"tuned_error needs validation data"):
        tuned_error()(FakeDraft(net=net()))
    with pytest.raises(RecipeError, match=r"tuned_error needs training data"):
        tuned_error(split=digits().val)(FakeDraft(net=net()))
    with pytest.raises(TrainError, match=r"lr must be"):
        tuned_error(lr=0.0)
    with pytest.raises(RecipeError, match=r"tuned_error: train_images"):
        tuned_error(train_images=1)
    with pytest.raises(RecipeError, match=r"tuned_error: reconstruct must be 0 or more"):
        tuned_error(reconstruct=-1)
