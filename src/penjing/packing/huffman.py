"""Canonical Huffman codes: frequent symbols in few bits.

A coded text is one run of bytes: the code's length of each symbol of the alphabet, how many bits each chunk of symbols
takes (uint16, low byte first), and the stream, highest bit first. Chunks start where the one before ends, inside of a
byte if need be; knowing where, numpy decodes them side by side, one symbol of each chunk at a time.
"""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

from penjing.core.errors import BundleError, PlanError

LONGEST = 32
"""Bits of a code."""

CHUNK = 1024
"""Symbols; a chunk of the longest codes has 32,768 bits, which two bytes tell."""

BLOCK = 1024 * CHUNK
"""Symbols encoded at once, which bounds the memory taken."""

WHOLE = 1 << LONGEST
"""What the shares of all codes add up to, in units of the longest code's."""


def lengths(counts: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return the bits of each symbol's code, 0 for a symbol that does not occur.

    Of equal counts the symbol that comes first is joined first, and a joined pair last. A lone symbol takes one bit.
    Where a code would have more than 32 bits, counts are halved until none has: a few bits in millions.

    Shapes: counts [alphabet]; returned [alphabet].

    Paper: Huffman, A Method for the Construction of Minimum-Redundancy Codes, 1952.
    """
    while True:
        found = _depths(counts)
        if found.max(initial=0) <= LONGEST:
            return found.astype(np.uint8)
        counts = (counts + 1) // 2


def size(counts: NDArray[np.int64]) -> int:
    """Return the bytes that ``encode`` makes of a text with these counts."""
    bits = int((counts * lengths(counts)).sum())
    return len(counts) + 2 * -(-int(counts.sum()) // CHUNK) + -(-bits // 8)


def encode(symbols: NDArray[np.uint8], alphabet: int) -> NDArray[np.uint8]:
    """Write symbols below ``alphabet``, at most 256.

    Raises: PlanError for a symbol outside of the alphabet.
    """
    counts = np.bincount(symbols, minlength=alphabet)
    if len(counts) > alphabet:
        raise PlanError(f"Symbol {len(counts) - 1} is outside of an alphabet of {alphabet}.")
    table = lengths(counts)
    order, firsts = _canonical(table)
    code = np.zeros(alphabet, dtype=np.uint64)
    code[order] = firsts << np.uint64(LONGEST)
    total = int((counts * table).sum())
    words = np.zeros(total // 32 + 2, dtype=np.uint64)
    chunks = [np.zeros(0, dtype="<u2")]
    start = 0
    for block in range(0, len(symbols), BLOCK):
        part = symbols[block : block + BLOCK]
        taken = table[part].astype(np.int64)
        ends = start + np.cumsum(taken)
        at = ends - taken
        placed = code[part] >> (at & 31).astype(np.uint64)
        np.add.at(words, at >> 5, placed >> np.uint64(32))  # bits never meet, and adding is numpy's quickest
        np.add.at(words, (at >> 5) + 1, placed & np.uint64(0xFFFFFFFF))
        chunks.append(np.add.reduceat(taken, np.arange(0, len(part), CHUNK)).astype("<u2"))
        start = int(ends[-1])
    stream = words.astype(">u4").view(np.uint8)[: -(-total // 8)]
    return np.concatenate([table, np.concatenate(chunks).view(np.uint8), stream])


def decode(data: NDArray[np.uint8], alphabet: int, count: int) -> NDArray[np.uint8]:
    """Read ``count`` symbols.

    Raises: BundleError when the bytes are not such a text: a table that is no prefix code's, bits that are too few, too
        many, or that end a chunk within a code.
    """
    chunks = -(-count // CHUNK)
    head = alphabet + 2 * chunks
    if len(data) < head:
        raise BundleError(f"a Huffman text of {count} symbols begins with {head} bytes, and {len(data)} are there.")
    table, stream = data[:alphabet], data[head:]
    bits = np.frombuffer(data[alphabet:head].tobytes(), dtype="<u2").astype(np.int64)
    total = int(bits.sum())
    order, firsts = _prefix_code(table, count)
    if len(stream) != -(-total // 8) or count > total:
        raise BundleError(f"a Huffman stream of {count} symbols in {total} bits has {len(stream)} bytes.")
    if total % 8 and stream[-1] & ((1 << -total % 8) - 1):
        raise BundleError("bits behind the last Huffman code are set.")
    if len(order) == 1 and stream.any():
        raise BundleError("a Huffman stream of one symbol holds another.")
    if not count:
        return np.zeros(0, dtype=np.uint8)
    ends = np.cumsum(bits)
    found, at = _side_by_side(stream, ends - bits, firsts, table[order], count)
    if not np.array_equal(at, ends):
        raise BundleError(f"chunk {int(np.argmax(at != ends))} of a Huffman stream does not end with a code.")
    return order.astype(np.uint8)[found.T.reshape(-1)[:count]]


def _depths(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how deep each symbol lies in Huffman's tree."""
    depths = np.zeros(len(counts), dtype=np.int64)
    heap = [(int(count), symbol) for symbol, count in enumerate(counts) if count]
    heapq.heapify(heap)
    if len(heap) == 1:
        depths[heap[0][1]] = 1
        return depths
    parent = dict[int, int]()
    joined = len(counts)
    while len(heap) > 1:
        (rare, one), (next_rare, other) = heapq.heappop(heap), heapq.heappop(heap)
        parent[one] = parent[other] = joined
        heapq.heappush(heap, (rare + next_rare, joined))
        joined += 1
    depth = {joined - 1: 0}
    for node in sorted(parent, reverse=True):  # a parent is always younger
        depth[node] = depth[parent[node]] + 1
    for symbol in np.flatnonzero(counts):
        depths[symbol] = depth[int(symbol)]
    return depths


def _canonical(table: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Return the symbols in the order of their codes, and the codes, each moved up to 32 bits."""
    order = np.argsort(table, kind="stable")
    order = order[table[order] > 0]
    shares = np.uint64(1) << (LONGEST - table[order]).astype(np.uint64)
    return order, np.cumsum(shares) - shares


def _prefix_code(table: NDArray[np.uint8], count: int) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Return ``_canonical`` of a table of lengths once it is one: its shares add up to one, unless its symbol is alone.

    Raises: BundleError when they do not.
    """
    if table.max(initial=0) > LONGEST:
        raise BundleError(f"a Huffman code of {int(table.max())} bits is longer than {LONGEST}.")
    order, firsts = _canonical(table)
    shares = sum(WHOLE >> int(length) for length in table[order])
    if shares != {0: 0, 1: WHOLE // 2}.get(len(order), WHOLE) or bool(count) != bool(len(order)):
        raise BundleError(f"the lengths of {len(order)} Huffman codes are no prefix code's for {count} symbols.")
    return order, firsts


def _side_by_side(
    stream: NDArray[np.uint8],
    starts: NDArray[np.int64],
    firsts: NDArray[np.uint64],
    taken: NDArray[np.uint8],
    count: int,
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Decode all chunks in step: return the ranks of the symbols [symbols of a chunk, chunks], and where each ends.

    A chunk that is wrong cannot run farther than so many of the longest codes, for which zeros are behind the stream.
    """
    behind = 4 * (CHUNK * LONGEST // 32 + 2)
    whole = np.concatenate([stream, np.zeros(behind + -len(stream) % 4, dtype=np.uint8)])
    words = whole.view(">u4").astype(np.uint64)
    steps = taken.astype(np.int64)
    at = starts.copy()
    last = count - (len(at) - 1) * CHUNK
    found = np.empty((min(count, CHUNK), len(at)), dtype=np.uint8)
    for step in range(len(found)):
        live = at if step < last else at[:-1]  # the last chunk alone may be short
        word = live >> 5
        window = (words[word] << np.uint64(32) | words[word + 1]) << (live & 31).view(np.uint64) >> np.uint64(32)
        rank = np.searchsorted(firsts, window, side="right") - 1
        found[step, : len(live)] = rank
        live += steps[rank]
    return found, at
