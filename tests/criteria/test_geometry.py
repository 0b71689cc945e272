from __future__ import annotations

import numpy as np
import pytest
import torch

from penjing.core.errors import PlanError
from penjing.criteria.geometry import distances

from .nets import Mixed, evidence, score, shaken
from .test_magnitude import filters


def test_fpgm_of_three_points_on_a_line() -> None:
    given = evidence(filters([0, 0, 0], [3, 4, 0], [6, 8, 0]))
    assert torch.allclose(score("fpgm", given, "0"), torch.tensor([15.0, 10.0, 15.0], dtype=torch.float64))


def test_fpgm_is_the_sum_of_all_distances_between_filters_that_write_the_site() -> None:
    model = shaken(Mixed())
    rows = np.concatenate(
        [model.get_submodule(n).weight.detach().double().numpy().reshape(8, -1) for n in ("stem", "project", "outer")],
        axis=1,
    )
    expected = [sum(np.linalg.norm(a - b) for b in rows) for a in rows]
    assert np.allclose(score("fpgm", evidence(model), "stem"), expected)


def test_equal_filters_have_no_distance_and_close_ones_have() -> None:
    rng = torch.Generator().manual_seed(0)
    rows = torch.randn(3, 4608, generator=rng)
    rows[1] = rows[0]
    rows[2] = rows[0] * (1 + 1e-5)
    found = distances(rows)
    apart = float((rows[2].double() - rows[0].double()).norm())
    assert found[0, 1] < 0.01 * apart and abs(found[0, 2] / apart - 1) < 1e-3
    assert not found.diagonal().any() and torch.equal(found, found.T)


def test_single_weights_have_no_median() -> None:
    with pytest.raises(PlanError, match=r"fpgm scores channels, but stem\.weight"):
        score("fpgm", evidence(shaken(Mixed())), "stem.weight")
