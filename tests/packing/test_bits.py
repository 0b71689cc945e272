"""Codes of a few bits in bytes: the order of bits, every width and length, and bytes that are not such codes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.core.errors import BundleError, PlanError
from penjing.packing import bits


def test_lowest_bit_first() -> None:
    assert bits.pack(np.array([1, 2, 3, 7], np.uint8), 3).tolist() == [0b11_010_001, 0b0000_111_0]
    assert bits.pack(np.array([0x4, 0xA, 0xF], np.uint8), 4).tolist() == [0xA4, 0x0F]


@given(st.integers(1, 8).flatmap(lambda width: st.tuples(st.just(width), st.lists(st.integers(0, 2**width - 1)))))
@settings(deadline=None, derandomize=True)
def test_what_is_packed_is_unpacked(case: tuple[int, list[int]]) -> None:
    width, codes = case
    packed = bits.pack(np.array(codes, np.uint8), width)
    text = "".join(f"{code:0{width}b}"[::-1] for code in codes)  # the same bits, one by one
    text += "0" * (-len(text) % 8)
    assert packed.tolist() == [int(text[at : at + 8][::-1], 2) for at in range(0, len(text), 8)]
    assert bits.unpack(packed, width, len(codes)).tolist() == codes


def test_what_are_no_such_codes() -> None:
    with pytest.raises(PlanError, match="Code 4 does not fit in 2 bits"):
        bits.pack(np.array([4], np.uint8), 2)
    data = bits.pack(np.array([1, 2, 3], np.uint8), 2)
    for wrong in (data[:0], np.append(data, data)):
        with pytest.raises(BundleError, match="3 codes of 2 bits take 1 bytes"):
            bits.unpack(wrong, 2, 3)
    with pytest.raises(BundleError, match="behind the last code"):
        bits.unpack(data | np.uint8(64), 2, 3)
    with pytest.raises(BundleError, match="take"):
        bits.unpack(data, 2, 10**30)
