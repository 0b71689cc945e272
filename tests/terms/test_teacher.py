import copy
import gc
import weakref

import pytest
import torch
from torch import nn

from penjing.core.registry import build
from penjing.terms.teacher import Teacher, _loans

from .nets import Other, Plain, attached, batch

FIVE = ["soft_targets", "dist", "dkd", "attention_transfer", "fitnets"]


def hired(network, count=2):
    teachers = [Teacher("a test") for _ in range(count)]
    for teacher in teachers:
        teacher.hire(network, nn.Identity())
    return teachers


def test_terms_share_one_run_a_batch_whatever_their_order():
    for names in (FIVE, FIVE[::-1]):
        model, teacher = Plain(), Other()
        terms = [attached(build("term", name), model, teacher)[0] for name in names]
        teacher.runs = 0
        for seed in range(3):
            x = batch(seed=seed)
            outputs = model(x)
            assert all(torch.isfinite(term(x, outputs, None)) for term in terms)
        assert teacher.runs == 3


def test_every_term_sees_what_it_would_see_alone():
    model, teacher, x = Plain().eval(), Other(), batch()
    outputs = model(x)
    alone = []
    for name in FIVE:
        torch.manual_seed(0)
        term, _ = attached(build("term", name), model, teacher)
        outputs = model(x)
        alone.append(term(x, outputs, None))
        term.detach()
    terms = []
    for name in FIVE:
        torch.manual_seed(0)
        terms.append(attached(build("term", name), model, teacher)[0])
    outputs = model(x)
    assert all(torch.equal(term(x, outputs, None), one) for term, one in zip(terms, alone, strict=True))


def test_another_batch_a_batch_written_to_and_another_precision_are_run_anew():
    network, x = Plain().eval(), batch()
    first, second = hired(network)
    said = first(x)
    assert second(x) is said and network.runs == 1
    same = x.clone()
    assert torch.equal(second(same), said) and network.runs == 2
    x.mul_(2)
    assert not torch.equal(second(x), said) and network.runs == 3
    with torch.autocast("cpu", torch.bfloat16):
        assert second(x).dtype == torch.bfloat16
    assert second(x).dtype == torch.float32 and network.runs == 5


def test_a_new_batch_at_the_place_of_an_old_one_is_run():
    network = Plain().eval()
    (teacher,) = hired(network, 1)
    for seed in range(20):
        x = batch(seed=seed)
        assert torch.equal(teacher(x), network(x))
        del x


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_it_goes_back_with_its_modes_when_the_last_releases_it(order):
    network = Plain().train()
    network.drop.eval()
    before = copy.deepcopy(network.state_dict())
    teachers = hired(network)
    teachers[0](batch())
    teachers[order[0]].release()
    assert not network.training
    assert torch.isfinite(teachers[order[1]](batch())).all()
    teachers[order[1]].release()
    assert (network.training, network.one.training, network.drop.training) == (True, True, False)
    assert network not in _loans
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_who_hires_another_gives_the_first_back():
    first, second = Plain().train(), Plain().train()
    (teacher,) = hired(first, 1)
    teacher.hire(second, nn.Identity())
    assert first.training and not second.training
    teacher.release()
    assert second.training


def test_nothing_holds_a_network_that_nobody_returned():
    network = Plain()
    teachers = hired(network)
    teachers[0](batch())
    seen = weakref.ref(network)
    del network, teachers
    gc.collect()
    assert seen() is None
