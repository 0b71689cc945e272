"""Clusters of equal size, as groups of a convolution need them."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from penjing.core.units import Floats, Ints

ROUNDS = 30


def equal(points: Floats, clusters: int) -> Ints:
    """Return the order that puts points into equally large clusters, one after the other; always the same.

    It is k-means where each round solves the assignment of points to places in clusters exactly.

    Shapes: points [n, features] to [n], with n a multiple of ``clusters``.
    """
    from scipy.optimize import linear_sum_assignment
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    each = len(points) // clusters
    if clusters == 1 or each <= 1:
        return np.arange(len(points))
    distinct = len(np.unique(points.round(9), axis=0))
    with warnings.catch_warnings():  # of points that coincide but for rounding: their clusters are filled below
        warnings.simplefilter("ignore", ConvergenceWarning)
        start = KMeans(min(clusters, distinct), n_init=4, random_state=0).fit(points).cluster_centers_
    centers = start[np.arange(clusters) % len(start)]
    labels: NDArray[np.int64] = np.full(len(points), -1)
    for _ in range(ROUNDS):
        distance = ((points[:, None] - centers[None]) ** 2).sum(2)
        rows, places = linear_sum_assignment(np.repeat(distance, each, axis=1))
        found = np.empty_like(labels)
        found[rows] = places // each
        if (found == labels).all():
            break
        labels = found
        centers = np.stack([points[labels == c].mean(0) for c in range(clusters)])
    return np.argsort(labels, kind="stable")
