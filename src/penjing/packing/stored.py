"""Weights as facts and tensors of a file, and back: levels as codes, sparse weights as places and values, buckets.

What is read is held against the bytes that are there before anything is made of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from penjing.core.errors import BundleError, PlanError, did_you_mean
from penjing.packing import coding, hashed, zeros
from penjing.packing.levels import MOST_BITS, Levels
from penjing.packing.parts import Packed, floats, only, raw, whole

Reader = Callable[[Mapping[str, Any], Mapping[str, Tensor], tuple[int, ...]], Any]
"""Makes a stored weight of facts, tensors and the shape it must have; raises BundleError without the layer's name."""


def pack(name: str, weight: Levels | hashed.Hashed | Tensor, how: str = "") -> Packed:
    """Return a weight as it is stored, in the fewest bytes.

    Levels become codes in ``"bits"`` or ``"huffman"``, as asked or as is smaller. Where that takes fewer bytes, the
    code that most numbers have (mostly zero) is left out, and where the others are is stored. A float tensor is taken
    to be sparse: where it is not zero, and its values there; a dense one takes more bytes so than as it is.

    Raises: PlanError naming the layer, for numbers that are not finite, and for another coding or dtype.
    """
    if how and how not in coding.CODINGS:
        raise PlanError(f"{name}: there is no coding {how!r}.{did_you_mean(how, coding.CODINGS)}")
    if isinstance(weight, Levels):
        _finite(name, weight.table, weight.scale)
        ways = (how,) if how else coding.CODINGS
        return min(_levels_in(weight, ways), key=lambda found: found.bytes)
    if isinstance(weight, hashed.Hashed):
        _finite(name, weight.buckets)
        return weight.packed()
    _finite(name, weight)
    return _sparse(weight.detach().cpu())


def unpack(name: str, facts: Any, tensors: Mapping[str, Tensor], shape: tuple[int, ...]) -> Any:
    """Return the weight that facts and tensors hold: ``Levels``, ``Hashed`` or a float32 tensor.

    ``shape`` is that of the network's own layer, which bounds what is made of few bytes.

    Raises: BundleError naming the layer and what is wrong with its facts or tensors.
    """
    try:
        if not isinstance(facts, Mapping):
            raise BundleError(f"its facts are a {type(facts).__name__}, not a mapping.")
        form = facts.get("form")
        if not isinstance(form, str) or form not in READERS:
            raise BundleError(f"form {str(form)[:40]!r} is unknown.{did_you_mean(str(form)[:40], READERS)}")
        if facts.get("shape") != list(shape) or not shape:
            raise BundleError(f"it is of shape {str(facts.get('shape'))[:80]}, and the layer's is {list(shape)}.")
        return READERS[form](facts, tensors, shape)
    except (BundleError, PlanError) as error:
        raise BundleError(f"The stored weight of {name} cannot be read: {error} Write its bundle again.") from None


def _finite(name: str, *numbers: Tensor) -> None:
    for tensor in numbers:
        if tensor.dtype != torch.float32 or not torch.isfinite(tensor).all():
            raise PlanError(f"{name}: stored numbers are finite float32; these are {tensor.dtype}, or NaN or infinite.")


def _levels_in(weight: Levels, ways: tuple[str, ...]) -> list[Packed]:
    """Return levels with all codes, and with the most frequent code left out, in each coding."""
    codes, levels = weight.codes.detach().cpu().numpy().reshape(-1), len(weight.table)
    facts = {"form": "levels", "shape": list(weight.shape), "bits": weight.bits}
    scale = weight.scale.reshape(-1) if weight.scale.ndim > 1 else weight.scale
    numbers = {"table": _own(weight.table), "scale": _own(scale)}

    def stored(some: NDArray[np.uint8], alphabet: int, how: str, more: dict[str, Any], **places: Tensor) -> Packed:
        written = torch.from_numpy(coding.write(some, alphabet, how))
        return Packed(facts | {"coding": how} | more, {"codes": written, **places, **numbers})

    found = [stored(codes, levels, how, {}) for how in ways]
    if levels > 1 and codes.size:
        most = int(np.bincount(codes).argmax())
        there = codes != most
        others = codes[there]
        others -= others > most
        place, data = zeros.write(there)
        more = {"apart": most, "where": place}
        found += [stored(others, levels - 1, how, more, where=torch.from_numpy(data)) for how in ways]
    return found


def _read_levels(facts: Mapping[str, Any], tensors: Mapping[str, Tensor], shape: tuple[int, ...]) -> Levels:
    apart = "apart" in facts
    only(facts, {"form", "shape", "bits", "coding"} | ({"apart", "where"} if apart else set()), "facts")
    only(tensors, {"codes", "table", "scale"} | ({"where"} if apart else set()), "tensors")
    table, scale = floats(tensors, "table", (1, 2)), floats(tensors, "scale", (0, 1))
    levels, numbers = len(table), math.prod(shape)
    bits = whole(facts, "bits", 1, MOST_BITS)
    each = 1 if table.ndim == 1 else table.shape[1]
    if not 1 <= levels <= 2**bits or not each:
        raise BundleError(f"a table {list(table.shape)} is none for {numbers} numbers in codes of {bits} bits.")
    count = numbers // each
    if not apart:
        codes = coding.read(raw(tensors, "codes"), levels, count, facts["coding"])
    else:
        most = whole(facts, "apart", 0, levels - 1)
        there = zeros.read(facts["where"], raw(tensors, "where"), count)
        others = coding.read(raw(tensors, "codes"), levels - 1, int(there.sum()), facts["coding"])
        codes = np.full(count, most, dtype=np.uint8)
        codes[there] = others + (others >= most)
    return Levels(torch.from_numpy(codes), table, scale, shape, bits)


def _sparse(weight: Tensor) -> Packed:
    flat = weight.reshape(-1)
    there = flat != 0
    facts, data = zeros.write(there.numpy())
    tensors = {"where": torch.from_numpy(data), "values": _own(flat[there])}
    return Packed({"form": "sparse", "shape": list(weight.shape), "where": facts}, tensors)


def _read_sparse(facts: Mapping[str, Any], tensors: Mapping[str, Tensor], shape: tuple[int, ...]) -> Tensor:
    only(facts, {"form", "shape", "where"}, "facts")
    only(tensors, {"where", "values"}, "tensors")
    values = floats(tensors, "values", (1,))
    numbers = math.prod(shape)
    there = zeros.read(facts["where"], raw(tensors, "where"), numbers)
    if len(values) != int(there.sum()):
        raise BundleError(f"it has {int(there.sum())} places and {len(values)} values.")
    weight = torch.zeros(numbers)
    weight[torch.from_numpy(there)] = values
    return weight.reshape(shape)


def _own(tensor: Tensor) -> Tensor:
    """Return a copy on the CPU that shares memory with nothing, as safetensors wants it."""
    return tensor.detach().cpu().clone().contiguous()


READERS: dict[str, Reader] = {"levels": _read_levels, "sparse": _read_sparse, "hashed": hashed.read}
"""What reads each form."""
