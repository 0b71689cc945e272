"""A finished network as a folder that needs penjing and its builder, and no pickle: safetensors and JSON.

``weights.safetensors`` holds every tensor once, and choices of the lineage that are long, a bit a unit;
``manifest.json`` the builder's name, the counts of its modules, the lineage of plans, and the checksums of the weights
and of itself, so that a byte that changed is never taken for a network. Loading builds the original on the meta device
and gives it the tensors; nothing is traced again.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as unpacked
from safetensors.torch import save as as_bytes
from torch import nn

import penjing
from penjing import zoo
from penjing.core.errors import BundleError, PlanError
from penjing.core.importing import call_named
from penjing.core.plan import Plan
from penjing.exporting.packed import packed as stored
from penjing.exporting.packed import take_in
from penjing.exporting.running import run_packed
from penjing.graph import exits, form
from penjing.graph.blocks import take_out
from penjing.graph.chains import stand_in, written
from penjing.graph.collaborative import KINDS, Partner, attach, partners
from penjing.graph.program import plain
from penjing.graph.quantized import Precision, precisions
from penjing.graph.quantized import attach as quantize

VERSION = 1
MANIFEST, WEIGHTS = "manifest.json", "weights.safetensors"
SEAL = "seal"
"""What a manifest calls the checksum of all else that it says."""

BUNDLE = "model.penjing"
"""A run's bundle, in its folder."""

LARGEST_MANIFEST = 64_000_000
"""Bytes; the lineage of single weights is long."""

LARGEST_INPUT = 2**28
"""Numbers in one sample of an input."""

LINEAGE = "lineage/"
"""What the names of long choices begin with, among the tensors."""

LONG = 256
"""Runs of kept units; a choice of more goes among the tensors."""

OURS = "penjing.zoo."
"""Builders under this name are imported without asking."""


@dataclass(frozen=True)
class Manifest:
    """What a bundle says of its network.

    ``counts`` are those of its modules, ``identities`` names those that do nothing, among them what was taken out, and
    ``chains`` holds the stages of those that are chains of linear layers, among them factorised ones; ``collaborative``
    are the convolutions with a collaborative layer, each with its kind and its batch norm; ``quantized`` the layers in
    few bits, each with its method and bits, and ``packed`` says how weights are stored that are codes or sparse.
    ``exits`` are those of a network that may answer early, each with its place, its form and its threshold.
    ``inputs`` are the shapes of one sample's inputs; ``facts`` what the run that made it wrote down.
    """

    network: str
    weights: str
    builder: str = ""
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    identities: Sequence[str] = ()
    chains: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    collaborative: Mapping[str, Any] = field(default_factory=dict)
    quantized: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    packed: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    exits: Sequence[Mapping[str, Any]] = field(default_factory=list)
    inputs: Sequence[Sequence[int]] = ()
    lineage: Sequence[Any] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    penjing: str = penjing.__version__
    bundle: int = VERSION
    seal: str = ""


def write(
    folder: str | Path,
    model: nn.Module,
    *,
    builder: str = "",
    plans: Sequence[Plan] = (),
    inputs: Sequence[Sequence[int]] = (),
    facts: Mapping[str, Any] | None = None,
    finished: bool = False,
) -> Path:
    """Write a bundle, whole or not at all; one that is there already is replaced.

    A kill in the moment of replacing leaves the old one beside, as a hidden folder that ends in ``.old``. Of a
    ``finished`` network, weights in few bits and sparse ones are packed; otherwise all is there to train on.

    Raises: BundleError when the system does not let it.
    """
    place = Path(folder)
    model, heads, told = exits.parted(model)
    whole, how = stored(model) if finished else (form.tensors(model), {})
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in (whole | heads).items()}
    lineage, bits = _lineage(plans)
    weights = as_bytes(tensors | bits)
    manifest = Manifest(
        network=type(model).__name__,
        weights=hashlib.sha256(weights).hexdigest(),
        builder=builder,
        counts=form.counts(model),
        identities=form.identities(model),
        chains=written(model),
        collaborative={name: asdict(partner) for name, partner in partners(model).items()},
        quantized={name: one.to_json() for name, one in precisions(model).items()},
        packed=how,
        exits=told,
        inputs=[list(shape) for shape in inputs],
        lineage=lineage,
        facts=dict(facts or {}),
    )
    return _written(place, weights, sealed(vars(manifest)))


def sealed(facts: Mapping[str, Any]) -> bytes:
    """Return the text of a manifest, with the checksum of all it says."""
    plain_ = json.loads(json.dumps(dict(facts), default=float))
    return json.dumps({**plain_, SEAL: _checksum(plain_)}, indent=1).encode()


def _checksum(facts: Mapping[str, Any]) -> str:
    others = {name: value for name, value in facts.items() if name != SEAL}
    return hashlib.sha256(json.dumps(others, sort_keys=True).encode()).hexdigest()


def _lineage(plans: Sequence[Plan]) -> tuple[list[Any], dict[str, torch.Tensor]]:
    """Return the plans as JSON data, and the long choices in them as bits."""
    data, bits = [plan.to_json() for plan in plans], dict[str, torch.Tensor]()
    for i, (plan, entries) in enumerate(zip(plans, data, strict=True)):
        for j, (entry, facts) in enumerate(zip(plan, entries, strict=True)):
            if len(facts["kept"]) > LONG:
                stays = np.zeros(entry.size, dtype=np.bool_)
                stays[entry.kept] = True
                facts["kept"] = f"{LINEAGE}{i}/{j}"
                bits[facts["kept"]] = torch.from_numpy(np.packbits(stays))
    return data, bits


def plans_of(folder: str | Path) -> tuple[Plan, ...]:
    """Return the plans that led to a bundle's network, in order.

    Raises: BundleError for a bundle, PlanError for plans, that cannot be read.
    """
    manifest, tensors = read_manifest(folder), _tensors(place_of(folder))

    def entry(facts: Any) -> Any:
        if not isinstance(facts, dict) or not isinstance(facts.get("kept"), str):
            return facts
        bits = tensors.get(facts["kept"])
        if bits is None or bits.dtype != torch.uint8 or not isinstance(facts.get("size"), int):
            raise BundleError(f"{folder} has no choice {facts['kept'][:40]!r} among its tensors.")
        kept = np.flatnonzero(np.unpackbits(bits.numpy())[: facts["size"]])
        return facts | {"kept": [[int(unit), int(unit)] for unit in kept]}

    return tuple(
        Plan.from_json([entry(facts) for facts in plan] if isinstance(plan, list) else plan)
        for plan in manifest.lineage
    )


def copied(folder: str | Path, to: str | Path) -> Path:
    """Copy a bundle, whole or not at all.

    Raises: BundleError when there is none, or the system does not let it.
    """
    files = (_file(place_of(folder), name).read_bytes() for name in (WEIGHTS, MANIFEST))
    return _written(Path(to), *files)


def _written(place: Path, weights: bytes, manifest: bytes) -> Path:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
        try:
            (beside / WEIGHTS).write_bytes(weights)
            (beside / MANIFEST).write_bytes(manifest)
            _exchange(beside, place)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except OSError as error:
        raise BundleError(f"The bundle {place} cannot be written: {error.strerror or error}.") from error
    return place


def _exchange(new: Path, place: Path) -> None:
    if not place.exists():
        new.rename(place)
        return
    old = new.with_name(f"{new.name}.old")
    place.rename(old)
    new.rename(place)
    shutil.rmtree(old, ignore_errors=True)


def read_manifest(folder: str | Path) -> Manifest:
    """Read what a bundle says of its network, without its weights.

    Raises: BundleError naming what is wrong with the file.
    """
    path = _file(place_of(folder), MANIFEST)
    if path.stat().st_size > LARGEST_MANIFEST:
        raise BundleError(f"{path} has more than {LARGEST_MANIFEST:,} bytes; that is no manifest.")
    try:
        data = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once)
        if data["bundle"] != VERSION:
            raise BundleError(f"{path} is of bundle version {data['bundle']!r}; this penjing reads version {VERSION}.")
        manifest = Manifest(**data)
    except BundleError as error:
        raise BundleError(f"{path}: {error}" if str(path) not in str(error) else str(error)) from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BundleError(f"{path} is no manifest: {type(error).__name__}: {str(error)[:200].rstrip('.')}.") from None
    strings = all(isinstance(value, str) for value in (manifest.network, manifest.weights, manifest.builder))
    maps = all(
        isinstance(by_name, dict) and all(isinstance(facts, dict) for facts in by_name.values())
        for by_name in (manifest.counts, manifest.chains, manifest.quantized, manifest.packed)
    )
    names = isinstance(manifest.identities, list) and all(isinstance(name, str) for name in manifest.identities)
    pairs = isinstance(manifest.collaborative, dict) and all(map(_is_partner, manifest.collaborative.values()))
    shapes = isinstance(manifest.inputs, list) and all(map(_is_shape, manifest.inputs))
    leaving = isinstance(manifest.exits, list) and all(map(exits.is_told, manifest.exits))
    if not (
        strings
        and maps
        and names
        and pairs
        and shapes
        and leaving
        and isinstance(manifest.lineage, list)
        and isinstance(manifest.facts, dict)
    ):
        raise BundleError(f"{path} is no manifest: its entries are of other kinds than a manifest's.")
    if manifest.seal != _checksum(data):
        raise BundleError(f"{path} is not as it was written: its checksum differs. Write or copy the bundle again.")
    return manifest


def _is_partner(facts: Any) -> bool:
    named = isinstance(facts, dict) and facts.keys() == {"kind", "norm"} and isinstance(facts["norm"], str)
    return named and facts["kind"] in KINDS


def _is_shape(sizes: Any) -> bool:
    whole = isinstance(sizes, list) and all(type(size) is int and size > 0 for size in sizes)
    return whole and math.prod(sizes) <= LARGEST_INPUT


def load(
    folder: str | Path, builder: Callable[[], nn.Module] | None = None, *, trust: bool = False, packed: bool = True
) -> nn.Module:
    """Return the network of a bundle, or of a run's folder, in eval mode, to run, train on, cut again or export.

    Layers of a finished network that have a kernel run from their packed weights, in C, unless ``packed`` is false:
    they are for running alone. ``builder`` makes the original; by default the one that the manifest names is called, if
    it is penjing's own. ``trust`` says that it may be imported wherever it comes from: importing runs code.

    Raises: BundleError naming the file and what is wrong with it.
    """
    place = place_of(folder)
    manifest = read_manifest(place)
    tensors = {name: tensor for name, tensor in _tensors(place).items() if not name.startswith(LINEAGE)}
    make = builder if builder is not None else partial(_built, place, manifest, trust)
    try:
        model = _without_numbers(make)
        for path in sorted({*manifest.chains, *manifest.collaborative}):  # what lies within comes last
            if path in manifest.chains:
                stand_in(model, {path: manifest.chains[path]})
            else:
                attach(model, {path: Partner(**manifest.collaborative[path])})
        take_out(model, manifest.identities)
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        quantize(model, {name: Precision.from_json(facts) for name, facts in manifest.quantized.items()}, shapes)
        heads = {name: tensors.pop(name) for name in list(tensors) if name.startswith(exits.PREFIX)}
        if manifest.packed:
            tensors = take_in(model, tensors, manifest.packed)
        model = form.refill(model, tensors, manifest.counts).eval()
        model = run_packed(model, manifest.inputs) if packed and manifest.packed else model
        return exits.joined(model, heads, manifest.exits)
    except PlanError as error:
        raise BundleError(f"{place} does not fit its builder: {error}") from None


def _tensors(place: Path) -> dict[str, torch.Tensor]:
    """Read the tensors, once their checksum is the manifest's.

    Raises: BundleError when it is not, or the file is not sound.
    """
    weights = _file(place, WEIGHTS).read_bytes()
    if hashlib.sha256(weights).hexdigest() != read_manifest(place).weights:
        raise BundleError(f"{place / WEIGHTS} is not the file that {MANIFEST} tells of: their checksums differ.")
    try:
        found: dict[str, torch.Tensor] = unpacked(weights)
    except SafetensorError as error:
        raise BundleError(f"{place / WEIGHTS} is no sound safetensors file: {error}.") from None
    return found


def _without_numbers(make: Callable[[], nn.Module]) -> nn.Module:
    """Build on the meta device, which costs neither time nor memory; where a builder needs numbers, with them."""
    try:
        with torch.device("meta"):
            return plain(make())
    except Exception:
        return plain(make())


def _is_ours(builder: str) -> bool:
    """Tell whether a builder is a network of the zoo, or another function of it that is given nothing.

    Others take arguments that name modules and files.
    """
    name, bracket, _ = builder.partition("(")
    module, _, function = name.partition(":")
    inside = name.startswith(OURS)
    return inside and (not bracket or module == f"{OURS}{zoo.BUILDERS.get(function)}")


def _built(place: Path, manifest: Manifest, trust: bool) -> nn.Module:
    if not manifest.builder:
        raise BundleError(f"{place} names no builder; pass the function that makes a {manifest.network}.")
    if not trust and not _is_ours(manifest.builder):
        raise BundleError(
            f"{place} names the builder {manifest.builder}, and importing it runs its code; pass the builder, or say "
            "that you trust it (trust=True, --trust)."
        )
    model = call_named(manifest.builder, "builder", BundleError)
    if not isinstance(model, nn.Module):
        raise BundleError(f"{manifest.builder} returned {type(model).__name__}; a builder returns a torch.nn.Module.")
    return model


def place_of(folder: str | Path) -> Path:
    """Return the bundle's folder: this one, or the one in a run's folder."""
    inner = Path(folder) / BUNDLE
    return inner if inner.is_dir() else Path(folder)


def _file(place: Path, name: str) -> Path:
    """Return a bundle's file.

    Raises: BundleError where it is not a plain file in a plain folder.
    """
    path = place / name
    if not place.is_dir():
        raise BundleError(f"There is no bundle {place}; a bundle is a folder with {MANIFEST} and {WEIGHTS}.")
    if path.is_symlink() or not path.is_file():
        raise BundleError(f"{path} is not there, or is a link; a bundle holds its own files.")
    return path


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise BundleError(f"the key {next(n for n in names if names.count(n) > 1)!r} is written twice.")
    return found
