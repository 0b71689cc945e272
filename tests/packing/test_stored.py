"""Stored weights: back as they were in every form, in as few bytes as told, and damage of any kind is refused."""

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from penjing.core.errors import BundleError, PlanError
from penjing.packing.levels import Levels
from penjing.packing.parts import Packed
from penjing.packing.stored import pack, unpack


def levels(count: int, shape: tuple[int, ...], *, width: int = 1, zeros: float = 0, bits: int = 0) -> Levels:
    """Return random levels, a share of them of code 1."""
    make = torch.Generator().manual_seed(0)
    table = torch.randn(count, width, generator=make)
    table[min(1, count - 1)] = 0
    codes = torch.randint(count, (torch.Size(shape).numel() // width,), generator=make)
    codes[torch.rand(len(codes), generator=make) < zeros] = min(1, count - 1)
    scale = torch.rand(shape[0], generator=make) if bits else torch.tensor(0.5)
    table = table if width > 1 else table[:, 0]
    return Levels(codes.byte(), table, scale, shape, bits or max(1, (count - 1).bit_length()))


def sparse(shape: tuple[int, ...], zeros: float) -> Tensor:
    make = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=make) * (torch.rand(shape, generator=make) >= zeros)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other) and one.dtype == other.dtype
    parts = ("codes", "table", "scale")
    return (one.shape, one.bits) == (other.shape, other.bits) and all(
        torch.equal(getattr(one, part).flatten(), getattr(other, part).flatten()) for part in parts
    )


WEIGHTS: dict[str, tuple[Levels | Tensor, str]] = {
    "codebook": (levels(16, (8, 4, 3, 3)), "bits"),
    "codebook, few": (levels(11, (8, 4, 3, 3)), "huffman"),
    "vectors": (levels(9, (6, 4, 3, 3), width=9), ""),
    "vectors of zeros": (levels(9, (6, 24, 3, 3), width=9, zeros=0.9), ""),
    "ternary": (levels(3, (12, 25), bits=2), ""),
    "ternary, sparse": (levels(3, (12, 25), zeros=0.9, bits=2), "bits"),
    "five, very sparse": (levels(5, (12, 200), zeros=0.97), "huffman"),
    "binary": (levels(2, (12, 25)), "bits"),
    "binary, sparse": (levels(2, (12, 200), zeros=0.98), ""),
    "one level": (levels(1, (3, 5)), ""),
    "none": (levels(4, (0, 5)), ""),
    "bytes": (levels(256, (8, 70)), ""),
    "sparse": (sparse((6, 5, 3, 3), 0.8), ""),
    "very sparse": (sparse((9, 300), 0.98), ""),
    "all zero": (torch.zeros(4, 300), ""),
}


@pytest.mark.parametrize("which", WEIGHTS)
def test_what_is_packed_is_unpacked_through_a_file(which: str) -> None:
    weight, how = WEIGHTS[which]
    packed = pack("conv1", weight, how)
    tensors = load(save(dict(packed.tensors)))
    assert {tensor.dtype for tensor in tensors.values()} <= {torch.uint8, torch.float32}
    assert packed.bytes == sum(tensor.nbytes for tensor in tensors.values())
    facts = json.loads(json.dumps(packed.facts))
    assert same(unpack("conv1", facts, tensors, tuple(weight.shape)), weight)
    if how:
        assert facts["coding"] == how


def test_the_dossiers_bytes() -> None:
    shape = (256, 64, 3, 3)
    numbers = 256 * 64 * 9
    assert pack("c", levels(16, shape), "bits").bytes == numbers // 2 + 4 * 17
    assert pack("c", levels(2, shape, bits=1), "bits").bytes == numbers // 8 + 4 * (2 + 256)
    ternary = pack("c", levels(3, shape), "bits")  # of which a third is zero: a bit for each, and one for each sign
    assert ternary.facts["where"] == {"as": "mask"}
    assert abs(ternary.bytes - numbers * (1 + 2 / 3) / 8) < 200


def test_the_smaller_coding_is_taken() -> None:
    even = levels(16, (64, 64, 3, 3))
    assert pack("c", even).facts["coding"] == "bits"
    uneven = Levels((even.codes.float() ** 2 / 15).byte(), even.table, even.scale, even.shape, 4)
    found = pack("c", uneven)
    assert found.facts["coding"] == "huffman"
    assert found.bytes < pack("c", uneven, "bits").bytes


def test_zeros_stand_apart_where_that_is_smaller() -> None:
    few, many = (pack("c", levels(16, (64, 64, 3, 3), zeros=share)) for share in (0.0, 0.9))
    assert "apart" not in few.facts
    assert many.facts["apart"] == 1
    numbers = 64 * 64 * 9
    assert many.bytes < numbers * (0.5 + 0.1 * 4) / 8  # fewer bits than a Huffman code without the pattern could take


@pytest.mark.parametrize(
    ("weight", "how", "said"),
    [
        (torch.tensor([[1.0, float("nan")]]), "", "conv1: stored numbers are finite"),
        (torch.ones(2, 2, dtype=torch.float64), "", "conv1: .*float64"),
        (levels(2, (2, 2)), "zip", r"conv1: there is no coding 'zip'"),
        (Levels(torch.zeros(4).byte(), torch.tensor([float("inf")]), torch.tensor(1.0), (2, 2), 1), "", "conv1"),
    ],
)
def test_what_cannot_be_stored(weight: Levels | Tensor, how: str, said: str) -> None:
    with pytest.raises(PlanError, match=said):
        pack("conv1", weight, how)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"form": "zip"}, "form 'zip' is unknown"),
        ({"form": ["levels"]}, "form .* is unknown"),
        ({"coding": "huffmann"}, "Did you mean 'huffman'"),
        ({"shape": [8, 4, 9]}, r"of shape \[8, 4, 9\]"),
        ({"bits": 3}, "is none for 288 numbers in codes of 3 bits"),
        ({"bits": "4"}, "whole number from 1 to 8"),
        ({"codes": torch.zeros(144)}, "'codes' is torch.float32"),
        ({"codes": torch.zeros(143, dtype=torch.uint8)}, "143 are there"),
        ({"table": torch.full((16,), float("nan"))}, "'table' holds NaN"),
        ({"table": torch.zeros(11)}, "outside of a table of 11"),
        ({"table": torch.zeros(16, 0)}, "is none for"),
        ({"scale": torch.zeros(7)}, "one a filter"),
        ({"scale": torch.zeros(8, 1)}, "'scale' is"),
        ({"scale": None}, "tensors are"),
    ],
)
def test_each_fault_is_named(changed: dict[str, Any], said: str) -> None:
    packed = pack("conv1", levels(16, (8, 4, 3, 3)), "bits")
    facts, tensors = dict(packed.facts), dict(packed.tensors)
    for key, value in changed.items():
        (tensors if key in tensors else facts)[key] = value
    tensors = {key: value for key, value in tensors.items() if value is not None}
    with pytest.raises(BundleError, match=rf"(?s)conv1.*{said}"):
        unpack("conv1", facts, tensors, (8, 4, 3, 3))


def test_vectors_that_do_not_fill_the_weight() -> None:
    packed = pack("conv1", levels(2, (2, 9), width=9), "bits")  # two codes, and twice seven numbers are fewer
    with pytest.raises(BundleError, match="of 7 numbers each make no weight"):
        unpack("conv1", packed.facts, {**packed.tensors, "table": torch.zeros(2, 7)}, (2, 9))


def test_a_code_beside_the_one_apart_does_not_wrap() -> None:
    packed = pack("conv1", levels(256, (8, 700), zeros=0.9), "bits")
    assert packed.facts["apart"] == 1
    codes = packed.tensors["codes"].clone()
    codes[0] = 255  # of 255 codes beside it
    with pytest.raises(BundleError, match="code 255 is outside of a table of 255"):
        unpack("conv1", packed.facts, {**packed.tensors, "codes": codes}, (8, 700))


@pytest.mark.parametrize("which", WEIGHTS)
def test_bytes_are_not_made_to_hold_more_than_they_do(which: str) -> None:
    packed = pack("conv1", *WEIGHTS[which])
    huge = (10**6, 9, 10**6)
    with pytest.raises(BundleError, match="conv1"):
        unpack("conv1", {**packed.facts, "shape": list(huge)}, packed.tensors, huge)


@pytest.mark.parametrize("which", WEIGHTS)
def test_damage_is_refused_or_harmless(which: str) -> None:
    weight, how = WEIGHTS[which]
    packed = pack("conv1", weight, how)
    for damaged in [*facts_damaged(packed), *bytes_damaged(packed, 40)]:
        try:
            found = unpack("conv1", damaged.facts, damaged.tensors, tuple(weight.shape))
        except BundleError as error:
            assert "conv1" in str(error)
        else:
            values = found.values() if isinstance(found, Levels) else found
            assert values.shape == weight.shape


JUNK: tuple[Any, ...] = (None, True, -1, 0, 3, 10**30, 2.5, float("nan"), "", "mask", "huffman", "bits", [], [1], {})


def facts_damaged(packed: Packed) -> Iterator[Packed]:
    """Yield the facts with each entry, at any depth, gone, named otherwise or something else."""

    def paths(facts: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        items = facts.items() if isinstance(facts, dict) else enumerate(facts) if isinstance(facts, list) else ()
        for key, value in items:
            yield (*at, key)
            yield from paths(value, (*at, key))

    plain = json.loads(json.dumps(packed.facts))
    for *way, last in paths(plain):
        for junk in (*JUNK, ...):
            facts = copy.deepcopy(plain)
            inner = facts
            for key in way:
                inner = inner[key]
            if junk is ...:
                value = inner.pop(last)
                if isinstance(inner, dict):
                    inner[f"{last}s"] = value
            else:
                inner[last] = junk
            yield Packed(facts, packed.tensors)
    for junk in JUNK:
        yield Packed(junk, packed.tensors)


def bytes_damaged(packed: Packed, times: int) -> Iterator[Packed]:
    """Yield the tensors with bits turned, cut short, made longer, gone, or of another kind."""
    draw = random.Random(0)
    for name, tensor in packed.tensors.items():
        raw = tensor.reshape(-1).view(torch.uint8)
        for _ in range(times if len(raw) else 0):
            turned = raw.clone()
            turned[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
            yield Packed(packed.facts, {**packed.tensors, name: turned.view(tensor.dtype).reshape(tensor.shape)})
        flat = tensor.reshape(-1)
        others = [flat[:-1], flat[:0], torch.cat([flat, flat]), tensor[None], tensor.double(), raw.float(), raw.int()]
        for other in (*others, None, "bytes"):
            yield Packed(packed.facts, {**packed.tensors, name: other})  # type: ignore[dict-item]
        yield Packed(packed.facts, {key: value for key, value in packed.tensors.items() if key != name})
        yield Packed(packed.facts, {**packed.tensors, f"{name}s": tensor})
