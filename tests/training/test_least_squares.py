import numpy as np
import pytest
import torch

from penjing.training.least_squares import Moments, solve


def drawn(rows=200, groups=2, size=5, out=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    read = torch.randn(groups, rows, size, generator=generator).double() + 1
    wanted = torch.randn(groups, rows, out, generator=generator).double() + read.sum(2, keepdim=True)
    return read, wanted


def test_moments_in_parts_are_those_of_the_whole():
    read, wanted = drawn()
    moments = Moments()
    for part in (slice(0, 70), slice(70, 200)):
        moments.add(read[:, part], wanted[:, part])
    covariance, cross = moments.covariances()
    for g in range(2):
        joint = np.cov(np.hstack([read[g].numpy(), wanted[g].numpy()]).T, bias=True)
        np.testing.assert_allclose(covariance[g].numpy(), joint[:5, :5], atol=1e-12)
        np.testing.assert_allclose(cross[g].numpy(), joint[:5, 5:], atol=1e-12)
    about_zero, _ = moments.covariances(centred=False)
    np.testing.assert_allclose(about_zero[1].numpy(), (read[1].T @ read[1]).numpy() / 200, atol=1e-12)


def test_without_ridge_it_is_the_least_squares_solution():
    read, wanted = drawn()
    moments = Moments()
    moments.add(read, wanted)
    found = solve(*moments.covariances(centred=False), torch.ones(2, 5, 3).double(), 0.0)
    torch.testing.assert_close(found, torch.linalg.lstsq(read, wanted).solution, atol=1e-7, rtol=1e-7)


def test_the_ridge_is_that_of_the_augmented_problem_and_a_large_one_keeps_the_prior():
    read, wanted = drawn(groups=1)
    moments = Moments()
    moments.add(read, wanted)
    covariance, cross = moments.covariances(centred=False)
    prior = torch.full((1, 5, 3), 0.7).double()
    strength = 0.3 * covariance.diagonal(dim1=1, dim2=2).mean() * 200
    rows = torch.cat([read[0], strength.sqrt() * torch.eye(5).double()])
    values = torch.cat([wanted[0], strength.sqrt() * prior[0]])
    torch.testing.assert_close(solve(covariance, cross, prior, 0.3)[0], torch.linalg.lstsq(rows, values).solution)
    torch.testing.assert_close(solve(covariance, cross, prior, 1e9), prior, atol=1e-6, rtol=0)


@pytest.mark.parametrize("zeros", [1, 4, 5])
def test_zeros_stay_and_the_rest_of_the_column_is_the_best_under_them(zeros):
    read, wanted = drawn(groups=1)
    moments = Moments()
    moments.add(read, wanted)
    prior = torch.ones(1, 5, 3).double()
    prior[0, :zeros, 1] = 0
    found = solve(*moments.covariances(centred=False), prior, 0.0)[0]
    assert (found[:zeros, 1] == 0).all()
    best = torch.linalg.lstsq(read[0][:, zeros:], wanted[0][:, 1:2]).solution[:, 0] if zeros < 5 else torch.zeros(0)
    torch.testing.assert_close(found[zeros:, 1], best.double(), atol=1e-7, rtol=1e-7)
    torch.testing.assert_close(found[:, 0], torch.linalg.lstsq(read[0], wanted[0]).solution[:, 0], atol=1e-7, rtol=1e-7)


def test_what_is_never_active_keeps_its_weights():
    prior = torch.ones(1, 4, 2).double()
    zero = torch.zeros(1, 4, 4).double()
    torch.testing.assert_close(solve(zero, torch.zeros(1, 4, 2).double(), prior, 1e-2), prior)


def test_a_zero_in_one_column_changes_no_other() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 50, 6, generator=generator, dtype=torch.float64)
    covariance, cross = x.mT @ x, torch.randn(2, 6, 4, generator=generator, dtype=torch.float64)
    prior = torch.randn(2, 6, 4, generator=generator, dtype=torch.float64)
    dense = solve(covariance, cross, prior, 1e-2)
    prior[0, 2, 1] = 0
    thinned = solve(covariance, cross, prior, 1e-2)
    changed = (thinned - dense).abs().amax(1) > 1e-9
    assert changed.nonzero().tolist() == [[0, 1]] and float(thinned[0, 2, 1]) == 0
