"""Symbols as bytes: each in the same number of bits, or in Huffman's."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from penjing.core.errors import BundleError, did_you_mean
from penjing.packing import bits, huffman

CODINGS = ("bits", "huffman")


def width(alphabet: int) -> int:
    """Return the bits that tell so many symbols apart; a lone one takes one too, so that bytes bound the count."""
    return max(1, (alphabet - 1).bit_length())


def size(counts: NDArray[np.int64], coding: str) -> int:
    """Return the bytes of symbols with these counts."""
    return huffman.size(counts) if coding == "huffman" else bits.size(int(counts.sum()), width(len(counts)))


def write(symbols: NDArray[np.uint8], alphabet: int, coding: str) -> NDArray[np.uint8]:
    """Return symbols below ``alphabet`` as bytes."""
    return huffman.encode(symbols, alphabet) if coding == "huffman" else bits.pack(symbols, width(alphabet))


def read(data: NDArray[np.uint8], alphabet: int, count: int, coding: object) -> NDArray[np.uint8]:
    """Return ``count`` symbols below ``alphabet``.

    Raises: BundleError when the bytes hold other ones, or the coding is none that is known.
    """
    if coding == "huffman":
        return huffman.decode(data, alphabet, count)
    if coding != "bits":
        raise BundleError(f"coding {str(coding)[:40]!r} is unknown.{did_you_mean(str(coding)[:40], CODINGS)}")
    symbols = bits.unpack(data, width(alphabet), count)
    if symbols.size and int(symbols.max()) >= alphabet:
        raise BundleError(f"code {int(symbols.max())} is outside of a table of {alphabet}.")
    return symbols
