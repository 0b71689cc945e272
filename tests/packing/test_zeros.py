"""Where values are: the known answer of gaps, each way where it is smallest, and facts that lie."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.core.errors import BundleError
from penjing.packing import bits, huffman, zeros


def places(*at: int, numbers: int) -> np.ndarray:
    there = np.zeros(numbers, np.bool_)
    there[list(at)] = True
    return there


def test_a_gap_too_long_for_its_field_is_continued() -> None:
    fields = np.array([1, 2, 7, 3, 0], np.uint8)  # the example of Deep Compression's figure 2, whose filler is the 7
    facts = {"as": "gaps", "bits": 3, "fields": 5, "coding": "bits"}
    assert np.array_equal(zeros.read(facts, bits.pack(fields, 3), 16), places(1, 4, 15, numbers=16))


def all_sizes(there: np.ndarray) -> list[int]:
    """Return the bytes of the mask and of gaps in fields of each width and coding, all really written."""
    found = [-(-len(there) // 8)]
    for width in range(2, 9):
        fields, zeros_before = list[int](), 0
        for value in [*there, True]:
            zeros_before += not value
            if value or zeros_before == 2**width - 1:
                fields.append(zeros_before)
                zeros_before = 0
        symbols = np.array(fields, np.uint8)
        found += [len(bits.pack(symbols, width)), len(huffman.encode(symbols, 2**width))]
    return found


@given(st.lists(st.booleans(), max_size=300), st.integers(0, 800))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_what_is_written_is_read(some: list[bool], behind: int) -> None:
    there = np.array(some + [False] * behind, np.bool_)
    facts, data = zeros.write(there)
    assert np.array_equal(zeros.read(facts, data, len(there)), there)
    assert len(data) == min(all_sizes(there))


@pytest.mark.parametrize(
    ("share", "numbers", "way"),
    [(0.5, 9216, ("mask", None)), (0.05, 9216, ("gaps", "huffman")), (0.02, 300, ("gaps", "bits"))],
)
def test_the_smallest_way_is_taken(share: float, numbers: int, way: tuple[str, str]) -> None:
    there = np.random.default_rng(0).random(numbers) < share
    facts, data = zeros.write(there)
    assert (facts["as"], facts.get("coding")) == way
    assert len(data) == min(all_sizes(there))
    assert np.array_equal(zeros.read(facts, data, numbers), there)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"bits": 9}, "from 2 to 8"),
        ({"bits": True}, "from 2 to 8"),
        ({"fields": 10**30}, "from 1 to"),
        ({"fields": 4}, "not to the end"),
        ({"coding": "zip"}, "coding 'zip' is unknown"),
        ({"as": "list"}, "by a mask or by gaps"),
        ({"more": 1}, "more"),
    ],
)
def test_facts_that_lie(changed: dict[str, object], said: str) -> None:
    facts = {"as": "gaps", "bits": 4, "fields": 3, "coding": "bits"} | changed
    data = bits.pack(np.array([1, 2, 3, 0][: 4 if changed == {"fields": 4} else 3], np.uint8), 4)
    with pytest.raises(BundleError, match=said):
        zeros.read(facts, data, 8)


def test_gaps_that_do_not_reach_the_end() -> None:
    facts = {"as": "gaps", "bits": 2, "fields": 2, "coding": "bits"}
    for fields in ([1, 3], [1, 1]):  # a last field without a value; one number short
        with pytest.raises(BundleError, match="not to the end of 4"):
            zeros.read(facts, bits.pack(np.array(fields, np.uint8), 2), 4)
    with pytest.raises(BundleError, match="facts"):
        zeros.read(None, bits.pack(np.array([1], np.uint8), 1), 1)
