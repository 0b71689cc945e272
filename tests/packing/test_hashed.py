"""Hashed weights as stored: xxHash's known answers, even buckets, and what is no weight."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from penjing.core.errors import BundleError, PlanError
from penjing.packing.hashed import Hashed, scattered, xxh32
from penjing.packing.stored import pack, unpack


@pytest.mark.parametrize(
    ("seed", "known"),
    [
        (0, [3736311059, 149775153, 3926170682, 3057032729, 3658090324, 4021065050]),
        (1, [3521805802, 1416521076, 4143920284, 1172219733, 753519850, 1287457514]),
        (7, [2604315376, 2995457283, 3428409819, 548899992, 3857667132, 495015769]),
    ],
)
def test_positions_hash_as_the_reference_library_hashes_them(seed, known):
    keys = np.array([0, 1, 2, 2359295, 2**32, 2**63 + 5], dtype="<u8").view("<u4").reshape(-1, 2).T
    assert xxh32(keys, seed).tolist() == known


def test_keys_of_another_length():
    assert xxh32([np.array([0, 1], np.uint32)], 0).tolist() == [148298089, 4089149075]
    with pytest.raises(ValueError, match="1 to 3 words"):
        xxh32(np.zeros((4, 1), np.uint32), 0)


def test_buckets_are_even_and_signs_are_fair():
    places, signs = scattered(64 * 2**10, 2**10, seed=3)
    assert 0.001 < chisquare(np.bincount(places.numpy(), minlength=2**10)).pvalue < 0.999
    assert chisquare([int((signs > 0).sum()), int((signs < 0).sum())]).pvalue > 0.001
    together = np.bincount(2 * places.numpy() + (signs.numpy() > 0), minlength=2**11)
    assert 0.001 < chisquare(together).pvalue < 0.999  # a bucket tells nothing of the sign
    other = scattered(64 * 2**10, 2**10, seed=4)
    assert float((places == other[0]).float().mean()) < 0.01


def test_values_are_signed_buckets():
    stored = Hashed(torch.tensor([0.5, -2.0]), 0, (3, 2))
    places, signs = scattered(6, 2, 0)
    assert stored.values().shape == (3, 2)
    assert stored.values().flatten().tolist() == [
        float(s) * [0.5, -2.0][int(p)] for p, s in zip(places, signs, strict=True)
    ]


@pytest.mark.parametrize(("buckets", "seed"), [(torch.zeros(0), 0), (torch.zeros(2, 2), 0), (torch.zeros(2), -1)])
def test_what_is_no_weight(buckets, seed):
    with pytest.raises(PlanError, match=r"Buckets are|seed of a hash"):
        Hashed(buckets, seed, (3, 2))


def test_what_is_packed_is_unpacked():
    stored = Hashed(torch.randn(5, generator=torch.Generator().manual_seed(0)), 9, (4, 3, 3, 3))
    packed = pack("conv1", stored)
    again = unpack("conv1", packed.facts, packed.tensors, (4, 3, 3, 3))
    assert torch.equal(again.values(), stored.values())
    assert packed.bytes == 20


@pytest.mark.parametrize(
    ("facts", "tensors", "said"),
    [
        ({"seed": 2**31}, {}, "'seed' is a whole number"),
        ({"shape": [4, 27]}, {}, "of shape"),
        ({"more": 1}, {}, "its facts are"),
        ({}, {"buckets": torch.zeros(0)}, "0 buckets for 108 numbers"),
        ({}, {"buckets": torch.zeros(109)}, "109 buckets for 108 numbers"),
        ({}, {"buckets": torch.tensor([float("nan")])}, "holds NaN"),
        ({}, {"signs": torch.zeros(108)}, "its tensors are"),
    ],
)
def test_each_fault_is_named(facts, tensors, said):
    packed = pack("conv1", Hashed(torch.ones(5), 0, (4, 3, 3, 3)))
    with pytest.raises(BundleError, match=rf"conv1 cannot be read: .*{said}"):
        unpack("conv1", {**packed.facts, **facts}, {**packed.tensors, **tensors}, (4, 3, 3, 3))
