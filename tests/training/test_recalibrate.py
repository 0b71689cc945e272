import pytest
import torch
from torch import nn

from penjing.core.errors import TrainError
from penjing.training.recalibrate import batch_norms, recalibrate

from .toys import Normed, Plain, built, equal, weights


def batches(sizes=(8, 8, 8)):
    generator = torch.Generator().manual_seed(0)
    return [3 + 2 * torch.randn(n, 3, 6, 6, generator=generator) for n in sizes]


def test_exact_average_of_the_batches():
    model = built(Normed).eval()
    model.bn.running_mean.fill_(77)
    recalibrate(model, batches())
    with torch.no_grad():
        maps = [model.conv(x).transpose(0, 1).flatten(1) for x in batches()]
    torch.testing.assert_close(model.bn.running_mean, torch.stack([m.mean(1) for m in maps]).mean(0))
    torch.testing.assert_close(model.bn.running_var, torch.stack([m.var(1) for m in maps]).mean(0))


def test_a_second_layer_sees_normalised_inputs_and_dropout_stays_off():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.9), nn.BatchNorm2d(3))
    recalibrate(model, batches())
    torch.testing.assert_close(model[2].running_mean, torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(model[2].running_var, torch.ones(3), atol=1e-2, rtol=0)


def test_everything_else_stays():
    model = built(Normed)
    model.bn.momentum = 0.3
    model.bn.eval()
    before = weights(model)
    recalibrate(model, iter(batches()))
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"bn.running_mean", "bn.running_var", "bn.num_batches_tracked"}
    assert model.bn.momentum == 0.3
    assert (model.training, model.bn.training, model.drop.training) == (True, False, True)


def test_labels_are_ignored_and_single_samples_passed_over():
    one, two = built(Normed), built(Normed)
    recalibrate(one, batches())
    recalibrate(two, [(x, torch.zeros(len(x))) for x in batches((8, 8, 8, 1))])
    assert equal(weights(one), weights(two))


def test_twice_is_once():
    model = built(Normed)
    recalibrate(model, batches())
    once = weights(model)
    recalibrate(model, batches())
    assert equal(weights(model), once)


def test_without_batch_norm_nothing_runs():
    model = built(Plain)
    assert batch_norms(nn.BatchNorm2d(3, track_running_stats=False)) == []
    recalibrate(model, (pytest.fail("a batch was asked for") for _ in range(1)))


@pytest.mark.parametrize(("given", "error"), [([], TrainError), ([*batches(), torch.zeros(4, 9, 6, 6)], RuntimeError)])
def test_a_failure_leaves_the_model_as_it_was(given, error):
    model = built(Normed)
    model.bn.running_mean.fill_(77)
    before = weights(model)
    with pytest.raises(error):
        recalibrate(model, given)
    assert equal(weights(model), before)
    assert model.bn.momentum == 0.1
    assert model.training
