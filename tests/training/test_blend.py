from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from penjing.core.errors import TrainError
from penjing.training.blend import Blend
from penjing.training.loop import Options, fit
from penjing.training.schedule import learning_rate

from .toys import Plain, built, equal, toy, weights

MIXED = Options(epochs=2, lr=0.1, batch=16, precision="32-true", channels_last=False, weight_decay=0.0, mixup=0.7)


def test_a_blend_is_the_weighted_sum_with_a_permutation_of_the_batch():
    blend, x = Blend.drawn(0.7, 5, 0, 3), torch.randn(5, 2, 3, 3)
    assert sorted(blend.partner.tolist()) == list(range(5))
    assert 0 <= blend.share <= 1
    torch.testing.assert_close(blend.of(x)[2], blend.share * x[2] + (1 - blend.share) * x[blend.partner[2]])
    again, other = Blend.drawn(0.7, 5, 0, 3), Blend.drawn(0.7, 5, 0, 4)
    assert again.share == blend.share != other.share


def test_shares_follow_the_beta_distribution():
    shares = torch.tensor([Blend.drawn(0.5, 2, 1, step).share for step in range(2000)])
    assert shares.mean() == pytest.approx(0.5, abs=0.03)
    assert shares.var() == pytest.approx(1 / (4 * (2 * 0.5 + 1)), abs=0.01)


def test_training_is_that_of_a_plain_loop_with_both_labels():
    split, model, plain = toy(50), built(Plain), built(Plain)
    fit(model, split, None, MIXED, seed=5)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    step = 0
    for epoch in range(2):
        for x, y in split.batches(16, seed=5, epoch=epoch, augment=True):
            blend = Blend.drawn(0.7, len(x), 5, step)
            optimizer.param_groups[0]["lr"] = learning_rate(step, 8, 0.1, 0.05)
            scores = plain(blend.of(x))
            loss = blend.share * F.cross_entropy(scores, y)
            loss = loss + (1 - blend.share) * F.cross_entropy(scores, y[blend.partner])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
    assert equal(weights(model), weights(plain))


def test_terms_see_the_blend():
    seen = []

    class Watch:
        def attach(self, model):
            return []

        def __call__(self, x, outputs, y):
            seen.append(x)
            return outputs.sum() * 0

        def after_step(self):
            pass

        def detach(self):
            pass

    split = toy(32)
    fit(built(Plain), split, None, replace(MIXED, epochs=1), terms=[Watch()], seed=5)
    for step, (x, _) in enumerate(split.batches(16, seed=5, epoch=0, augment=True)):
        torch.testing.assert_close(seen[step], Blend.drawn(0.7, 16, 5, step).of(x))


@pytest.mark.parametrize("alpha", [-1.0, float("nan")])
def test_a_wrong_alpha_is_refused(alpha):
    with pytest.raises(TrainError, match="mixup is the alpha of a beta distribution"):
        fit(built(Plain), toy(32), None, replace(MIXED, mixup=alpha))
