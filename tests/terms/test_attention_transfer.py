import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from penjing.core.errors import TrainError
from penjing.terms.attention_transfer import attention_transfer

from .nets import Other, Plain, attached, batch

STUDENT = torch.tensor([[[[1.0, 2], [0, 1]], [[0, 1], [2, 0]]]])
TEACHER = torch.tensor([[[[2.0, 0], [1, 1]], [[1, 1], [0, 2]]]])


class Says(nn.Module):
    """A network whose only layer returns what it was made with."""

    def __init__(self, response):
        super().__init__()
        self.layer = nn.Identity()
        self.response = response

    def forward(self, x):
        return self.layer(self.response).mean((2, 3))


def apart(own, theirs, **options):
    model, x = Says(own), torch.zeros(len(own), 1)
    term, _ = attached(attention_transfer(**{"weight": 1.0, "layers": ("layer",), **options}), model, Says(theirs), x)
    return term(x, model(x), None)


def test_the_known_answer():
    assert apart(STUDENT, TEACHER).item() == pytest.approx(0.299096, abs=1e-6)
    assert apart(STUDENT, TEACHER, weight=1000.0).item() == pytest.approx(299.096, abs=1e-3)


def test_averages_over_the_batch():
    assert apart(STUDENT.expand(3, 2, 2, 2), TEACHER.expand(3, 2, 2, 2)).item() == pytest.approx(0.299096, abs=1e-6)
    both = apart(torch.cat([STUDENT, TEACHER]), torch.cat([TEACHER, TEACHER]))
    assert both.item() == pytest.approx(0.299096 / 2, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(scale=st.floats(1e-3, 1e3), copies=st.integers(1, 4), seed=st.integers(0, 99))
def test_neither_size_nor_number_nor_order_of_channels_matters(scale, copies, seed):
    rng = torch.Generator().manual_seed(seed)
    own, theirs = torch.randn(2, 3, 4, 4, generator=rng), torch.randn(2, 5, 4, 4, generator=rng)
    order = torch.randperm(3 * copies, generator=rng)
    changed = (scale * own.repeat(1, copies, 1, 1))[:, order]
    assert apart(changed, theirs).item() == pytest.approx(apart(own, theirs).item(), rel=1e-4, abs=1e-7)
    assert apart(changed, own).item() == pytest.approx(0, abs=1e-9)


def test_maps_of_other_sizes_are_compared_at_the_places_of_the_smaller():
    large = TEACHER.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert apart(STUDENT, large).item() == pytest.approx(0.299096, abs=1e-6)
    assert apart(large, TEACHER).item() == pytest.approx(0, abs=1e-9)


def test_a_layer_that_returns_nothing_but_zeros_has_finite_gradients():
    own = torch.zeros(1, 2, 2, 2, requires_grad=True)
    apart(own, TEACHER).backward()
    assert torch.isfinite(own.grad).all()


def test_another_architecture_teaches_the_ends_of_stages_and_gets_no_gradient():
    model, teacher, x = Plain(), Other(), batch()
    term, _ = attached(attention_transfer(), model, teacher)
    term(x, model(x), None).backward()
    assert term._between.pairs == (("one", "features.1"), ("two", "features.4"))
    assert model.one[0].weight.grad.abs().sum() > 0 and model.head.weight.grad is None
    assert all(p.grad is None for p in teacher.parameters())


def test_the_weight_falls_to_nothing_where_that_is_asked_for():
    model, x = Plain().eval(), batch()
    term = attention_transfer(decay=True)
    term.time(4)
    attached(term, model, Other())
    told = []
    for _ in range(5):
        told.append(term(x, model(x), None).item())
        term.after_step()
    assert [value / told[0] for value in told] == pytest.approx([1, 0.75, 0.5, 0.25, 0], abs=1e-6)


def test_a_weight_that_cannot_be_is_refused():
    with pytest.raises(TrainError, match="attention_transfer needs a weight of 0 or more"):
        attached(attention_transfer(weight=-1), Plain(), Other())
