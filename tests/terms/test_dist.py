import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from penjing.core.errors import TrainError
from penjing.terms.dist import dist, uncorrelated

RNG = torch.Generator().manual_seed(0)
OWN, THEIRS = torch.randn(5, 4, generator=RNG), torch.randn(5, 4, generator=RNG)


class Always(nn.Module):
    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, x):
        return self.logits


def loss(own, theirs, **options):
    term = dist(teacher=Always(theirs), **options)
    term.attach(nn.Identity())
    return term(torch.zeros(len(own), 1), own, None)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_it_is_what_is_missing_from_full_correlation(temperature):
    p, q = (torch.softmax(logits / temperature, 1).double().numpy() for logits in (OWN, THEIRS))
    rows = 1 - np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)])
    columns = 1 - np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(p.T, q.T, strict=True)])
    known = temperature**2 * (2 * rows + 3 * columns)
    assert loss(OWN, THEIRS, gamma=3.0, temperature=temperature).item() == pytest.approx(known, rel=1e-4)


@settings(max_examples=25, deadline=None)
@given(scale=st.floats(0.01, 100), shift=st.floats(-5, 5), row=st.integers(0, 4))
def test_an_affine_change_of_a_row_changes_nothing(scale, shift, row):
    p, q = torch.softmax(OWN.double(), 1), torch.softmax(THEIRS.double(), 1)
    changed = p.clone()
    changed[row] = scale * p[row] + shift
    assert uncorrelated(changed, q).item() == pytest.approx(uncorrelated(p, q).item(), abs=1e-6)


def test_an_equal_model_has_nothing_to_learn():
    assert loss(OWN, OWN).item() == pytest.approx(0, abs=1e-6)


def test_one_sample_has_rows_alone():
    single = loss(OWN[:1], THEIRS[:1], gamma=0.0)
    assert torch.equal(loss(OWN[:1], THEIRS[:1]), single) and single > 0


def test_a_class_that_nobody_tells_apart_has_finite_gradients():
    own = torch.zeros(3, 4, requires_grad=True)
    value = loss(own, torch.zeros(3, 4))
    value.backward()
    assert math.isfinite(value.item()) and torch.isfinite(own.grad).all()


def test_every_place_of_a_map_is_a_sample():
    own, theirs = (logits.T.reshape(1, 4, 5, 1) for logits in (OWN, THEIRS))
    assert loss(own, theirs).item() == pytest.approx(loss(OWN, THEIRS).item())


@pytest.mark.parametrize("options", [{"beta": -1.0}, {"gamma": math.nan}, {"temperature": 0.0}])
def test_options_that_cannot_be_are_refused(options):
    with pytest.raises(TrainError, match="dist needs beta and gamma of 0 or more"):
        loss(OWN, THEIRS, **options)


def test_other_classes_are_refused():
    with pytest.raises(TrainError, match=r"dist: the teacher returns \[5, 3\] and the model \[5, 4\]"):
        loss(OWN, THEIRS[:, :3])
