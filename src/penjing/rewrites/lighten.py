"""Choose, layer by layer, among the blocks of light architectures: each family at several ranks is one menu."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from penjing.core.errors import PlanError
from penjing.core.layers import Chain, Layer
from penjing.core.registry import register
from penjing.core.sites import Site, Slot
from penjing.core.units import Kept
from penjing.factors.base import Factorization, Ranks
from penjing.factors.depthwise_separable import depthwise_separable
from penjing.factors.fire import fire
from penjing.factors.fitted import dense, fit
from penjing.factors.grouped_shuffle import grouped_shuffle
from penjing.factors.layer import LayerSpec, read
from penjing.factors.ranks import by_ratio
from penjing.factors.shift import shift
from penjing.factors.side_by_side import side_by_side
from penjing.factors.svd import svd
from penjing.graph.chains import as_left, put_in, size_read
from penjing.graph.graph import Graph
from penjing.rewrites.factored import Factored, Made, chain_of
from penjing.rewrites.light import fire_beside
from penjing.rewrites.reading import Reading, blank, readings

FAMILIES: Mapping[str, Factorization] = {
    "depthwise_separable": depthwise_separable(),
    "grouped_shuffle": grouped_shuffle(2),
    "grouped_shuffle4": grouped_shuffle(4),
    "fire": fire(),
    "shift": shift(),
    "svd": svd("output"),
    "svd_spatial": svd("spatial"),
}
"""What a layer may become, by the name that a user gives it."""

LIGHT = ("depthwise_separable", "grouped_shuffle", "grouped_shuffle4", "fire", "shift")
"""Those that are blocks of light architectures."""

RATIOS = (1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
"""By how much an option lowers the MACs of its layer, at least."""

FEW = 8
"""From this rank on, ranks are rounded down to multiples of 4."""

OPTION = "option"
"""What the name of a site ends with, before the numbers of the options on its menu where not all are: option-3-7-20."""

QUICK = (2, 4)
"""Sweeps and steps of a fit that only tells what an option loses, in single precision."""


@dataclass(frozen=True)
class Option:
    """What a layer may become: a family at ranks.

    Units: MACs of one sample.
    """

    family: str
    ranks: Ranks
    macs: int

    @property
    def by(self) -> Factorization:
        """The factorisation."""
        return FAMILIES[self.family]

    def __str__(self) -> str:
        """Write it as a person reads it."""
        return f"{self.family}, rank {' x '.join(map(str, self.ranks))}"


@dataclass(frozen=True)
class Loss:
    """What an option loses: the squared movement of the answers, and the share of the squared response it misses."""

    answers: float
    error: float


@lru_cache(maxsize=4096)
def options(spec: LayerSpec, size: tuple[int, ...]) -> tuple[Option, ...]:
    """Return what a layer of this shape, on an input so large, may become with fewer MACs and weights, cheapest first.

    Shapes alone decide, so that a plan tells what it means wherever it is read.
    """
    found: dict[tuple[str, Ranks], Option] = {}
    for family, by in FAMILIES.items():
        if by.refuses(spec):
            continue
        for ratio in RATIOS:
            ranks = tuple(r if r < FEW else r - r % 4 for r in by_ratio(by, spec, ratio, size))
            if (family, ranks) not in found and by.pays(spec, ranks, size):
                found[family, ranks] = Option(family, ranks, by.cost(spec, ranks, size).macs)
    return tuple(sorted(found.values(), key=lambda one: (one.macs, one.family, one.ranks)))


@register("rewrite")
@dataclass(frozen=True)
class lighten(Factored):  # noqa: N801  (registered under its own name)
    """Turn layers into depthwise-separable, grouped-with-shuffle, fire or shift blocks, each fitted to what it reads.

    A unit is an option, a family at a rank, in the order of their MACs; of those that are kept the last is taken, and
    kept whole a layer stays as it is. Steps make menus of it, ordered by what options cost on the target, without those
    that another, or the layer, beats there; a site's name says which are on its menu. One plan factorises by one
    rewrite; that ranks may compete with families, ``svd`` and ``svd_spatial`` are options as well.

    Steps give the calibration ``pictures``: weights are fitted to the responses on them, and an option loses by how
    much it moves the answers, to first order, which is the unit of the criterion ``jacobian``. Without pictures layers
    are taken to read white noise.

    Paper: MobileNets (Howard et al., 2017), ShuffleNet (Zhang et al., 2018), SqueezeNet (Iandola et al., 2016), Shift
    (Wu et al., 2018) for the blocks; choosing among them under a budget, from a trained network, is derived here.
    """

    by: ClassVar[Factorization] = FAMILIES["depthwise_separable"]
    shares: ClassVar[bool] = False

    pictures: Sequence[Tensor] = field(default=(), repr=False, compare=False)
    _seen: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def on(self, pictures: Sequence[Tensor]) -> Self:
        """Return the same for these batches."""
        return replace(self, pictures=pictures, _seen={})

    # ------------------------------------------------------------------------------------- what it says

    def refuses(self, spec: LayerSpec) -> str:
        """Return why a layer cannot become lighter, as the end of a sentence, or nothing where it can."""
        reasons = [by.refuses(spec) for by in FAMILIES.values()]
        return "" if "" in reasons else reasons[0]

    def _sites(self, layer: Layer, spec: LayerSpec | None) -> Iterator[Site]:
        """Return the site of a layer: its options and, last, the layer."""
        if spec is not None and (found := options(spec, size_read(layer, spec))):
            none, size = np.arange(0), len(found) + 1
            self._found[layer.name] = layer
            slot = Slot(layer.weight, -1, "out", none, none)
            name = f"{layer.name}/{OPTION}"
            yield Site(name, "options", size, (slot,), none, most=size - 1, order=np.arange(size))

    @property
    def _found(self) -> dict[str, Layer]:
        """The layers that have sites, by name."""
        found: dict[str, Layer] = self._seen.setdefault("found", {})
        return found

    def every(self, graph: Graph, layer: Layer) -> tuple[Option, ...]:
        """Return all options of a layer."""
        spec = graph.modules[layer.weight]
        return options(spec, size_read(layer, spec))

    def chosen(self, graph: Graph, kept: Mapping[str, Kept]) -> dict[str, Option]:
        """Return what layers become, by their names."""
        layers, found = {layer.name: layer for layer in graph.layers}, dict[str, Option]()
        for site, units in kept.items():
            name, every = site.rpartition("/")[0], self.every(graph, layers[site.rpartition("/")[0]])
            menu, last = menu_of(site, len(every)), int(units.max())
            if last < len(menu):
                found[name] = every[menu[last]]
        return found

    def chains(self, graph: Graph, kept: Mapping[str, Kept], layers: Mapping[int, Layer]) -> dict[int, Chain]:
        """Return the chains that take the place of layers, as the rest of a plan leaves them, by their position."""
        chosen, found = self.chosen(graph, kept), dict[int, Chain]()
        for i, layer in layers.items():
            if layer.name in chosen:
                whole = graph.modules[layer.weight]
                spec = as_left(whole, layer)
                size = size_read(layer, spec)
                if made := _left(chosen[layer.name], whole, spec, size):
                    stages = made[0].stages(spec, made[1])
                    found[i] = chain_of(layer, size, stages, fire_beside(stages))
        return found

    # -------------------------------------------------------------------------------------- what it loses

    def look(self, model: nn.Module) -> None:
        """Run the pictures through the model, once."""
        self._read(model, {_path(layer.weight): layer for layer in self._found.values()})

    def losses(self, model: nn.Module, wanted: Mapping[str, Sequence[int]]) -> dict[str, dict[int, Loss]]:
        """Return what these options of layers lose, by the layers' names; each is fitted once."""
        self.look(model)
        known: dict[tuple[str, int], Loss] = self._seen.setdefault("losses", {})
        todo = [(name, i) for name, mine in wanted.items() for i in mine if (name, i) not in known]
        specs = {name: read(model.get_submodule(_path(self._found[name].weight)), name) for name in wanted}
        readings = self._read(model, {})

        def lost(one: tuple[str, int]) -> Loss:
            name, i = one
            layer = self._found[name]
            path, option = _path(layer.weight), options(specs[name], size_read(layer, specs[name]))[i]
            return self._lost(model.get_submodule(path), path, option, readings)

        needs = [self.needs(specs[name]) for name, _ in todo]
        known |= zip(todo, side_by_side(lost, todo, needs, "fitting options"), strict=True)
        return {name: {i: known[name, i] for i in mine} for name, mine in wanted.items()}

    def _lost(self, old: nn.Module, path: str, option: Option, readings: Mapping[str, Reading]) -> Loss:
        reading, whole = readings.get(path) or blank(old), dense(old, path)
        chain = option.by.split(old, option.ranks, path)
        product = (
            fit(chain, whole.float(), reading.patches, *QUICK) if path in readings else dense(option.by.merge(chain))
        )
        errors, power = (reading.patches.errors(rows) for rows in (whole - product, whole))
        return Loss(float((errors * reading.slopes).sum()), float(errors.sum() / power.sum().clamp_min(1e-300)))

    def scores(self, model: nn.Module, site: Site) -> Tensor:
        """Return by how much each option of a site loses less than the one before it, and the layer less than all."""
        menu, name = menu_of(site.name, site.size - 1), site.name.rpartition("/")[0]
        known = self.losses(model, {name: menu})[name]
        lost = [2 * max(one.answers for one in known.values()), *(known[i].answers for i in menu), 0.0]
        return -torch.tensor(lost, dtype=torch.float64).diff()

    def needs(self, spec: LayerSpec) -> int:
        """Return the memory that fitting a layer's options takes at most.

        Units: bytes.
        """
        width = spec.in_channels * spec.taps
        return 8 * (2 * width**2 + 8 * spec.out_channels * width)

    # -------------------------------------------------------------------------------------- what it does

    def apply(self, model: nn.Module, graph: Graph, kept: Mapping[str, Kept]) -> None:
        """Put fitted chains, in place, where the layers were."""
        layers, made = {layer.name: layer for layer in graph.layers}, dict[str, Made]()
        for name, option in self.chosen(graph, kept).items():
            path = _path(layers[name].weight)
            spec = read(model.get_submodule(path), name)
            left = _left(option, graph.modules[layers[name].weight], spec, size_read(layers[name], spec))
            if left is not None:
                made[path] = (name, *left)
        paths = {_path(layer.weight): layer for layer in layers.values()}
        self._read(model, {path: paths[path] for path in made})
        self.put(model, made)

    def put(self, model: nn.Module, layers: Mapping[str, Made]) -> None:
        """Put chains, in place, where the layers of these paths were, each fitted to what it reads now."""
        olds = {path: model.get_submodule(path) for path in layers}
        readings, made = self._read(model, {}), self._known("made", _mark(model))

        def fitted(path: str) -> tuple[nn.Sequential, Tensor]:
            name, by, ranks = layers[path]
            key = path, by, ranks
            if key not in made:
                chain, whole = by.split(olds[path], ranks, name), dense(olds[path], name)
                product = fit(chain, whole, readings[path].patches) if path in readings else whole
                made[key] = chain, whole - product
            chain, gap = made[key]
            return copy.deepcopy(chain), gap

        needs = [self.needs(read(old, layers[path][0])) for path, old in olds.items()]
        for path, (chain, gap) in zip(layers, side_by_side(fitted, list(layers), needs, "fitting"), strict=True):
            if path in readings:
                readings[path].shift(model, chain, olds[path], gap)
            put_in(model, path, chain)

    def _read(self, model: nn.Module, layers: Mapping[str, Layer]) -> dict[str, Reading]:
        """Return what layers read in a model, these among them; nothing without pictures."""
        if not self.pictures:
            return {}
        known: dict[str, Reading] = self._known("readings", _mark(model))
        todo = {path: layer for path, layer in layers.items() if path not in known}
        known.update(readings(model, todo, self.pictures) if todo else {})
        return known

    def _known(self, what: str, mark: bytes) -> dict[Any, Any]:
        """Return what is known of a network, to be added to.

        A search applies plans to copies of one network: what was seen of its like is kept, and of the last other.
        """
        kept: dict[bytes, dict[Any, Any]] = self._seen.setdefault(what, {})
        if mark not in kept and len(kept) > 1:
            del kept[list(kept)[1]]
        return kept.setdefault(mark, {})


def menu_of(site: str, every: int) -> list[int]:
    """Return the numbers of the options on a site's menu, as its name tells; all of ``every`` where it names none.

    >>> menu_of("conv1/option-3-0-7", 9), menu_of("conv1/option", 2)
    ([3, 0, 7], [0, 1])

    Raises: PlanError for a name that is none.
    """
    axis, *numbers = site.rpartition("/")[2].split("-")
    if axis != OPTION or not all(number.isdigit() for number in numbers):
        raise PlanError(f"{site!r} is no menu of options; its name ends with {OPTION}, or {OPTION}-3-7 for some.")
    return [int(number) for number in numbers] or list(range(every))


def _path(weight: str) -> str:
    return weight.rpartition(".")[0]


def _mark(model: nn.Module) -> bytes:
    """Return a digest of a model's tensors: networks alike read the same."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().flatten().contiguous().view(torch.uint8).numpy())
    return digest.digest()


def _left(option: Option, whole: LayerSpec, spec: LayerSpec, size: Sequence[int]) -> tuple[Factorization, Ranks] | None:
    """Return how what a plan leaves of a layer becomes this option, ranks shrunk alike; None where it does not pay."""
    by = option.by
    if by.refuses(spec):
        return None
    pairs = zip(option.ranks, by.full(whole), by.full(spec), strict=True)
    ranks = tuple(max(1, rank * left // full) for rank, full, left in pairs)
    return (by, ranks) if by.pays(spec, ranks, size) else None
