"""EVBMF against what its authors' port gives."""

from __future__ import annotations

import numpy as np
import pytest

from penjing.core.errors import PlanError
from penjing.factors.evbmf import evbmf


def squared(matrix: np.ndarray) -> np.ndarray:
    return np.linalg.svd(matrix, compute_uv=False) ** 2


def test_threshold_and_rank_of_a_known_matrix() -> None:
    found = evbmf(np.array([10, 5, 0.5, 0.1]) ** 2, 4, 8, variance=0.01)
    assert found.threshold == pytest.approx(0.533538, abs=1e-6)
    assert found.rank == 2
    assert found.threshold**2 / (8 * 0.01) == pytest.approx(3.558279, abs=1e-6)


@pytest.mark.parametrize(
    ("rows", "columns", "rank", "noise"),
    [(64, 576, 8, 0.1), (64, 576, 8, 1), (64, 576, 8, 3), (100, 100, 10, 0.5), (576, 64, 5, 0.3), (64, 576, 0, 1)],
)
def test_it_finds_rank_and_noise_at_every_scale(rows: int, columns: int, rank: int, noise: float) -> None:
    rng = np.random.default_rng(rank)
    matrix = rng.standard_normal((rows, rank)) @ rng.standard_normal((rank, columns))
    matrix += noise * rng.standard_normal((rows, columns))
    for scale in (1.0, 1e-4):
        found = evbmf(squared(scale * matrix), rows, columns)
        assert found.rank == rank
        assert found.variance == pytest.approx((scale * noise) ** 2, rel=0.05)


def test_shrunk_values_are_those_of_the_clean_matrix_nearly() -> None:
    rng = np.random.default_rng(1)
    clean = rng.standard_normal((60, 4)) @ rng.standard_normal((4, 300))
    found = evbmf(squared(clean + rng.standard_normal(clean.shape)), 60, 300)
    np.testing.assert_allclose(found.shrunk[:4], np.sqrt(squared(clean))[:4], rtol=0.02)
    assert not found.shrunk[4:].any()


def test_zeros_one_row_and_an_exact_rank() -> None:
    assert evbmf(np.zeros(5), 5, 9).rank == 0
    assert evbmf(np.ones(1), 1, 9).rank == 1
    exact = np.linalg.svd(np.outer(np.arange(1.0, 9), np.ones(20)), compute_uv=False)
    assert evbmf(exact**2, 8, 20).rank == 1


@pytest.mark.parametrize("wrong", [np.ones(3), np.array([1, np.nan, 0, 0]), np.array([1.0, 0, 0, -1])], ids=str)
def test_what_are_no_singular_values_is_refused(wrong: np.ndarray) -> None:
    with pytest.raises(PlanError, match=r"4 x 8 has 4 squared singular values"):
        evbmf(wrong, 4, 8)
    with pytest.raises(PlanError, match=r"variance of noise must be positive"):
        evbmf(np.ones(4), 4, 8, variance=0.0)
