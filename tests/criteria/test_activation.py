from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import entropy as entropy_of_shares
from scipy.stats import spearmanr
from torch import Tensor, nn

from penjing.core.errors import PlanError, RecipeError
from penjing.core.registry import build

from .nets import READERS, Mixed, again, batches, evidence, images, inputs_of, probed, score, shaken

UNEQUAL = (11, 1, 28)


@pytest.fixture(scope="module")
def mixed():
    model = shaken(Mixed())
    return model, evidence(model, batches(images(40), None, *UNEQUAL))


def seen(model: nn.Module, name: str) -> list[list[Tensor]]:
    """What each reader of a site sees, image by image, as [units, ...]."""
    return list(inputs_of(model, READERS[name], images(40)).values())


# ------------------------------------------------------------------------------------- against single images


@pytest.mark.parametrize("name", READERS)
def test_apoz_is_the_share_of_non_zeros_over_all_images(mixed, name: str) -> None:
    model, given = mixed
    expected = [np.mean([x.numpy().reshape(len(x), -1) != 0 for x in maps], axis=(0, 2)) for maps in seen(model, name)]
    found = score("apoz", given, name)
    assert np.allclose(found, np.mean(expected, axis=0), atol=1e-12)
    assert 0.1 < found.mean() < 0.9 and len(set(found.tolist())) > 2


@pytest.mark.parametrize("name", READERS)
def test_entropy_is_that_of_the_histogram_over_all_images(mixed, name: str) -> None:
    model, given = mixed
    expected = []
    for maps in seen(model, name):
        pooled = np.array([x.double().flatten(1).mean(1).numpy() for x in maps])
        low = np.percentile(pooled, 0.1, axis=0, method="higher")
        high = np.percentile(pooled, 99.9, axis=0, method="lower")
        shares = [np.histogram(np.clip(c, a, b), 10, (a, b))[0] for c, a, b in zip(pooled.T, low, high, strict=True)]
        expected.append([entropy_of_shares(s) for s in shares])
    assert np.allclose(score({"entropy": {"bins": 10}}, given, name), np.mean(expected, axis=0), atol=1e-9)


@pytest.mark.parametrize("name", READERS)
def test_hrank_is_the_mean_rank_over_all_images(mixed, name: str) -> None:
    model, given = mixed
    readers = seen(model, name)
    expected = np.mean([[[rank(m) for m in x.numpy()] for x in maps] for maps in readers], axis=(0, 1))
    found = score("hrank", given, name).numpy()
    # The tie-break stays below half of the smallest possible difference.
    assert (found >= expected - 1e-9).all() and (found <= expected + 0.5 / (40 * len(readers)) + 1e-9).all()
    assert name == "last" or np.ptp(expected) > 0.1


def rank(matrix: np.ndarray) -> int:
    matrix = np.atleast_2d(matrix)
    s = np.linalg.svd(matrix, compute_uv=False)
    return int((s > max(matrix.shape) * np.finfo(np.float32).eps * s[0]).sum())


@pytest.mark.parametrize("name", ["apoz", "entropy", "hrank"])
def test_how_the_data_is_batched_changes_nothing(mixed, name: str) -> None:
    _, given = mixed
    other = again(given, batches(images(40), None, 40))
    assert torch.allclose(score(name, given, "stem"), score(name, other, "stem"), rtol=1e-5)


@pytest.mark.parametrize("name", ["apoz", "entropy", "hrank"])
def test_a_layer_called_twice_is_two_readers(name: str) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.same = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
            self.head = nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.same(self.same(self.stem(x).relu()).relu())
            return self.head(x.relu().mean((2, 3)))

    model = shaken(Twice())
    given = evidence(model, batches(images(20), None, 20))
    with torch.no_grad():
        first = model.stem(images(20)).relu()
        second = model.same(first).relu()
        third = model.same(second).relu().mean((2, 3))
    expected = [score(name, probed(x), "0") for x in (first, second)]
    if name != "hrank":
        expected.append(score(name, probed(third[:, :, None, None]), "0"))
        assert torch.allclose(score(name, given, "stem"), torch.stack(expected).mean(0), atol=1e-6)
    else:
        expected.append((third != 0).double().mean(0))
        assert torch.allclose(score(name, given, "stem"), torch.stack(expected).mean(0), atol=1 / 60)


# ---------------------------------------------------------------------------------------------- APoZ alone


def test_apoz_of_known_activations() -> None:
    rng = torch.Generator().manual_seed(0)
    dead, symmetric = -torch.rand(200, 1, 8, 8, generator=rng), torch.randn(200, 1, 8, 8, generator=rng)
    found = score("apoz", probed(torch.cat([dead, symmetric, 0.1 - dead], 1)), "0")
    assert found[0] == 0 and abs(found[1] - 0.5) < 0.01 and found[2] == 1


def test_apoz_counts_every_activation_once_whatever_its_batch() -> None:
    x = torch.ones(10, 2, 2, 2)
    x[:3, 0] = -1
    x[9, 0, 0, 0] = -1
    given = probed(x)
    # A mean of batch means would weigh the batch of one as much as the batch of nine.
    for sizes in ((10,), (1, 9), (9, 1), (4, 3, 3)):
        other = again(given, batches(x, None, *sizes))
        assert score("apoz", other, "0").tolist() == [1 - 13 / 40, 1.0]


def test_apoz_counts_in_integers() -> None:
    counts = build("criterion", {"apoz": {}})._count(torch.ones(2, 3, 1, 4))
    assert counts.dtype == torch.int64 and counts[:, 3].tolist() == [8, 8, 8]


def test_apoz_without_relu_counts_what_is_small_against_its_sample() -> None:
    x = torch.tensor([[3.0, 0.1, 0.0, -4.0], [30.0, 1.0, 0.0, -40.0]])[:, :, None, None]
    given = probed(x, relu=False)
    # The root mean squares of the samples are 2.5 and 25.0: below 0.05 times lie 0.1, 1.0 and the zeros.
    assert score({"apoz": {"epsilon": 0.05}}, given, "0").tolist() == [1, 0, 0, 1]
    assert score({"apoz": {"epsilon": 0.039}}, given, "0").tolist() == [1, 1, 0, 1]


# ------------------------------------------------------------------------------------------- entropy alone


def column(*values: Tensor) -> Tensor:
    return torch.stack(values, 1)[:, :, None, None]


def test_entropy_of_known_distributions() -> None:
    n = 100_000
    rng = torch.Generator().manual_seed(0)
    uniform = torch.rand(n, generator=rng)
    two = torch.arange(n).remainder(2) * 3.0 + 1
    found = score("entropy", probed(column(torch.full((n,), 0.3), uniform, two)), "0")
    assert found[0] == 0
    assert abs(found[1] - math.log(100)) < 0.01
    assert abs(found[2] - math.log(2)) < 1e-9


def test_entropy_ignores_the_order_of_the_images_and_affine_rescaling() -> None:
    rng = torch.Generator().manual_seed(1)
    x = torch.rand(300, generator=rng)
    shuffled = x[torch.randperm(300, generator=rng)]
    found = score("entropy", probed(column(x, shuffled, x * 4, x * 0.25 + 2)), "0")
    assert found[0] == found[1] == found[2] and abs(found[0] - found[3]) < 0.02 and found[0] > 3.5


@pytest.mark.parametrize("n", [300, 5000])
def test_one_outlier_does_not_squeeze_the_other_images_into_one_bin(n: int) -> None:
    x = torch.rand(n, generator=torch.Generator().manual_seed(2))
    outlier = x.clone()
    outlier[0] = 1e4
    found = score("entropy", probed(column(x, outlier)), "0")
    assert abs(found[0] - found[1]) < 0.1


def test_a_channel_that_fires_once_is_not_a_constant() -> None:
    rare = torch.zeros(300)
    rare[7] = 1
    found = score("entropy", probed(column(rare, torch.zeros(300))), "0")
    assert abs(found[0] - float(entropy_of_shares([299, 1]))) < 1e-9 and found[1] == 0


def test_rounding_is_not_entropy() -> None:
    rng = torch.Generator().manual_seed(3)
    noisy = 0.3 + 1e-7 * torch.rand(300, generator=rng)
    assert score("entropy", probed(column(noisy, noisy * 0)), "0").tolist() == [0, 0]


def test_one_image_has_no_entropy() -> None:
    given = again(probed(torch.rand(2, 3, 4, 4)), [(torch.rand(1, 3, 4, 4), None)])
    assert score("entropy", given, "0").tolist() == [0, 0, 0]


# --------------------------------------------------------------------------------------------- HRank alone


def maps(*matrices: Tensor) -> Tensor:
    """Two images with these maps, the second twice as bright."""
    return torch.stack(matrices)[None] * torch.tensor([1.0, 2.0])[:, None, None, None]


def whole(scores: Tensor) -> list[float]:
    """Take the tie-break off: it is below half a rank over all maps."""
    return (scores * 2).floor().div(2).tolist()


def test_hrank_of_known_matrices() -> None:
    rng = torch.Generator().manual_seed(0)
    u, v = torch.rand(6, generator=rng), torch.rand(4, generator=rng)
    identity, full = torch.eye(6, 4), torch.rand(6, 4, generator=rng)
    found = score("hrank", probed(maps(torch.outer(u, v), identity, torch.zeros(6, 4), full)), "0")
    assert whole(found) == [1, 4, 0, 4]
    assert found[2] == 0 and found.argmax() in (1, 3)


def test_hrank_tolerance_follows_the_largest_singular_value() -> None:
    eps = 6 * torch.finfo(torch.float32).eps
    above, below = (
        torch.diag(torch.tensor([8.0, 1, 8 * eps * 2, 0, 0, 0])),
        torch.diag(torch.tensor([8.0, 1, eps, 0, 0, 0])),
    )
    assert whole(score("hrank", probed(maps(above, below)), "0")) == [3, 2]


def test_batched_ranks_equal_those_of_single_maps() -> None:
    rng = torch.Generator().manual_seed(4)
    x = torch.randn(30, 5, 7, 7, generator=rng).relu() * (torch.rand(30, 5, 7, 1, generator=rng) > 0.4)
    expected = np.array([[rank(m.numpy()) for m in image] for image in x])
    assert len(np.unique(expected)) > 4
    found = score("hrank", probed(x), "0") * 30
    assert found.floor().tolist() == expected.sum(0).tolist()


def test_equal_ranks_are_ordered_by_size_and_different_ranks_never_are() -> None:
    one, two = torch.zeros(2, 4, 4), torch.zeros(2, 4, 4)
    one[:, 0, 0] = 1
    two[0, :2, :2] = torch.eye(2)
    two[1, 0, 0] = 1
    # Ranks 1, 1, 1 and 3/2 in the mean; the last is smaller than any by many orders.
    x = torch.stack([one * 2, one * 1e6, one, two * 1e-6], 1)
    found = score("hrank", probed(x), "0")
    assert found.argsort().tolist() == [2, 0, 1, 3]
    assert found[1] < 1.5 <= found[3]


def test_hrank_draws_the_same_images_in_whatever_order() -> None:
    model = shaken(Mixed())
    x = images(40)
    given = evidence(model, batches(x, None, 30, 10))
    spec = {"hrank": {"images": 9}}
    found = score(spec, given, "stem")
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(found, score(spec, again(given, batches(x[order], None, 8, 32)), "stem"), rtol=1e-9)
    assert (found - score("hrank", given, "stem")).abs().max() > 1e-3
    seeded = again(given)
    seeded.seed = 1
    assert not torch.equal(found, score(spec, seeded, "stem"))
    assert sum(len(x) for x, _ in given.sample(9).batches) == 9 and given.sample(40) is given


def test_hrank_is_stable_between_disjoint_batches_of_a_trained_network() -> None:
    from penjing.data import digits
    from penjing.zoo.digits import digits_net

    pictures = torch.cat(digits().calibration(600, 0))
    model = digits_net(pretrained=True)
    given = evidence(model, batches(pictures[:300], None, 300), pictures[:2])
    other = again(given, batches(pictures[300:], None, 300))
    # The last convolution is left out: its maps are pooled to single numbers before anything reads them.
    for name in ("conv1", "conv2", "block1.conv1"):
        first, second = score("hrank", given, name), score("hrank", other, name)
        assert spearmanr(first, second).statistic >= 0.95


# ------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("name", ["apoz", "entropy", "hrank"])
def test_weights_and_missing_data_are_refused_by_name(mixed, name: str) -> None:
    _, given = mixed
    with pytest.raises(PlanError, match=f"{name} scores channels, but inner.weight is a site of weights"):
        score(name, given, "inner.weight")
    with pytest.raises(PlanError, match="calibration data"):
        score(name, again(given, []), "stem")


def test_senseless_options_are_refused() -> None:
    with pytest.raises(RecipeError, match="2 bins; got 1"):
        build("criterion", {"entropy": {"bins": 1}})
    with pytest.raises(RecipeError, match="1 image; got 0"):
        build("criterion", {"hrank": {"images": 0}})
