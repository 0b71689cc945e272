"""Canonical Huffman codes: the known answers, a decoder bit by bit, the longest codes, and what is no such text."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.core.errors import BundleError, PlanError
from penjing.packing import huffman

COUNTS = np.array([45, 13, 12, 16, 9, 5])
WORDS = ["0", "100", "101", "110", "1110", "1111"]


def words(table: list[int]) -> dict[str, int]:
    """Return the codes of a table of lengths, as the canonical assignment's definition has them."""
    code, before, found = 0, 0, {}
    for length, symbol in sorted((length, symbol) for symbol, length in enumerate(table) if length):
        code <<= length - before
        found[f"{code:0{length}b}"] = symbol
        code, before = code + 1, length
    return found


def text(table: list[int], symbols: list[int]) -> np.ndarray:
    """Write symbols in the code of any table."""
    word = {symbol: code for code, symbol in words(table).items()}
    codes = [word[symbol] for symbol in symbols]
    taken = [sum(map(len, codes[at : at + huffman.CHUNK])) for at in range(0, len(codes), huffman.CHUNK)]
    stream = np.packbits(np.array([int(bit) for code in codes for bit in code], np.uint8))
    return np.concatenate([np.array(table, np.uint8), np.array(taken, "<u2").view(np.uint8), stream])


def test_known_answers() -> None:
    assert huffman.lengths(COUNTS).tolist() == [1, 3, 3, 3, 4, 4]
    symbols = np.repeat(np.arange(6, dtype=np.uint8), COUNTS)
    symbols[[1, 45, 2, 58, 3, 70, 4, 86, 5, 95]] = symbols[[45, 1, 58, 2, 70, 3, 86, 4, 95, 5]]  # a to f stand in front
    data = huffman.encode(symbols, 6)
    assert len(data) == 6 + 2 + 224 // 8 == huffman.size(COUNTS)
    assert "".join(f"{byte:08b}" for byte in data[8:11]).startswith("".join(WORDS))
    assert huffman.decode(data, 6, 100).tolist() == symbols.tolist()


@pytest.mark.parametrize(("symbols", "lengths"), [([], [0, 0, 0]), ([2] * 11, [0, 0, 1]), ([1, 0], [1, 1, 0])])
def test_few_symbols(symbols: list[int], lengths: list[int]) -> None:
    data = huffman.encode(np.array(symbols, np.uint8), 3)
    assert data[:3].tolist() == lengths
    assert huffman.decode(data, 3, len(symbols)).tolist() == symbols


@given(st.lists(st.integers(0, 7).map(lambda bits: 2**bits - 1), max_size=60))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_one_bit_after_the_other_says_the_same(symbols: list[int]) -> None:
    data = huffman.encode(np.array(symbols, np.uint8), 128)
    known, found, code = words(data[:128].tolist()), list[int](), ""
    for bit in "".join(f"{byte:08b}" for byte in data[128 + 2 * bool(symbols) :]):
        code += bit
        if code in known and len(found) < len(symbols):
            found.append(known[code])
            code = ""
    assert found == symbols == huffman.decode(data, 128, len(symbols)).tolist()


@pytest.mark.parametrize("count", [1023, 1024, 1025, 100_000])
def test_many_symbols_in_fewer_bits_than_entropy_and_one(count: int) -> None:
    share = 0.7 ** np.arange(40)
    symbols = np.random.default_rng(0).choice(40, count, p=share / share.sum()).astype(np.uint8)
    data = huffman.encode(symbols, 40)
    assert np.array_equal(huffman.decode(data, 40, count), symbols)
    counts = np.bincount(symbols, minlength=40)
    real = counts[counts > 0] / count
    entropy = -(real * np.log2(real)).sum()
    assert entropy <= 8 * (len(data) - 40) / count <= entropy + 1
    assert len(data) == huffman.size(counts)


def test_blocks_meet_within_a_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    symbols = np.random.default_rng(0).integers(0, 3, 5000).astype(np.uint8)
    data = huffman.encode(symbols, 3)
    monkeypatch.setattr(huffman, "BLOCK", huffman.CHUNK)
    assert np.array_equal(huffman.encode(symbols, 3), data)


def test_codes_longer_than_32_bits_are_avoided() -> None:
    counts = [1, 1]
    while len(counts) < 60:
        counts.append(counts[-1] + counts[-2])  # of which Huffman's tree is a line
    found = huffman.lengths(np.array(counts[::-1]))
    assert found.max() <= 32 < 59
    assert sum(2.0 ** -int(length) for length in found) == 1


def test_the_longest_codes_are_read() -> None:
    table = [*range(1, 33), 32]
    symbols = [32] * 1500 + list(range(33))
    assert huffman.decode(text(table, symbols), 33, 1533).tolist() == symbols


@pytest.mark.parametrize(
    ("table", "count", "said"),
    [
        ([1, 1, 1], 3, "no prefix code"),
        ([1, 2, 0], 2, "no prefix code"),
        ([2, 0, 0], 1, "no prefix code"),
        ([0, 0, 0], 1, "no prefix code"),
        ([1, 1, 0], 0, "no prefix code"),
        ([33, 1, 1], 1, "33 bits is longer"),
    ],
)
def test_tables_that_are_none(table: list[int], count: int, said: str) -> None:
    data = np.array([*table, *([8, 0, 0] if count else [])], np.uint8)
    with pytest.raises(BundleError, match=said):
        huffman.decode(data, 3, count)


def test_streams_that_are_none() -> None:
    symbols = np.repeat(np.arange(6, dtype=np.uint8), 30 * COUNTS)
    data = huffman.encode(symbols, 6)
    for wrong in (data[:5], data[:11], data[:-1], np.append(data, np.uint8(0))):
        with pytest.raises(BundleError):
            huffman.decode(wrong, 6, len(symbols))
    for count in (len(symbols) - 1, len(symbols) + 1, 10**30):
        with pytest.raises(BundleError):
            huffman.decode(data, 6, count)
    moved = data.copy()
    moved[[6, 8]] += np.array([1, 255], np.uint8)  # one chunk's bit is given to the next
    with pytest.raises(BundleError, match=r"chunk 0 .* does not end with a code"):
        huffman.decode(moved, 6, len(symbols))
    with pytest.raises(BundleError, match="5 symbols in 1 bits"):
        huffman.decode(np.array([1, 1, 1, 0, 0], np.uint8), 2, 5)
    short = huffman.encode(np.array([0, 1, 1], np.uint8), 2)
    with pytest.raises(BundleError, match="behind the last"):
        huffman.decode(short | np.array([0, 0, 0, 0, 1], np.uint8), 2, 3)
    with pytest.raises(BundleError, match="holds another"):
        huffman.decode(huffman.encode(np.zeros(8, np.uint8), 1) | np.array([0, 0, 0, 1], np.uint8), 1, 8)
    with pytest.raises(PlanError, match="outside of an alphabet of 5"):
        huffman.encode(symbols, 5)
