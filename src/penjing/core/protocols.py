"""What an extension must offer, kind by kind: the protocols that criteria, rewrites, costs and the others follow."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from penjing.core.layers import Chain, Layer, Traffic
from penjing.core.plan import Plan
from penjing.core.search import Search
from penjing.core.sites import Site
from penjing.core.units import Kept

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn
    from torch.optim import Optimizer


class Draft(Protocol):
    """The model *as if* a plan were applied; costs read it."""

    @property
    def graph(self) -> Any:
        """What the model is without the plan."""

    @property
    def plan(self) -> Plan:
        """The plan."""

    @property
    def layers(self) -> Sequence[Layer]:
        """The layers after the plan, by arithmetic."""

    @property
    def passes(self) -> Sequence[Traffic]:
        """The operators without weights after the plan, in the order of execution."""

    @property
    def parameters(self) -> int:
        """How many parameters are left."""

    @property
    def nonzero(self) -> int:
        """How many parameters are left and not set to zero by the plan."""

    @property
    def buffers(self) -> int:
        """How many elements the buffers have."""

    @property
    def peak_elements(self) -> int:
        """The largest number of activation elements of one sample alive at once."""

    @property
    def example(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """An example input of the model."""

    def model(self) -> nn.Module:
        """Build the model."""

    def whole(self) -> nn.Module:
        """Return the model without the plan, which is not to be changed."""


class Target(Protocol):
    """Hardware, or a runtime on it, that a network is to run on.

    ``tells`` maps the costs that it prices to their units. ``runtime`` names the runtime that measures latency on the
    exported file; it is empty where a model of the hardware decides. ``step`` is the multiple that channel counts are
    worth having in, None where that must be found out. ``batch`` is how many samples run at once.
    """

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def runtime(self) -> str:
        """The runtime that measures latency, or nothing."""

    @property
    def batch(self) -> int:
        """How many samples run at once."""

    @property
    def step(self) -> int | None:
        """The multiple that channel counts are worth having in."""

    @property
    def tells(self) -> Mapping[str, str]:
        """The costs this target prices, with their units."""

    def estimate(self, draft: Draft) -> Estimate:
        """Return what a draft costs here by arithmetic, row by row."""


class Estimate(Protocol):
    """What a network costs on a target: ``rows``, one a layer or pass, and the sums."""

    @property
    def rows(self) -> Sequence[Any]:
        """What each layer and pass costs."""

    def cost(self, name: str) -> float:
        """Return one of the costs that the target tells."""


class Runtime(Protocol):
    """Executes exported networks: what latency is measured on.

    ``reads_files`` says whether an ONNX file is enough, and not the module wanted; ``own_threads`` that it may compute
    on threads of its own, which the processor time of the calling thread misses.
    """

    @property
    def reads_files(self) -> bool:
        """Whether it opens ONNX files."""

    @property
    def own_threads(self) -> bool:
        """Whether it may compute on other threads than the caller's."""

    def version(self) -> str:
        """Return the version of the library."""

    def precisions(self) -> Sequence[str]:
        """Return what it computes 32-bit floats in on this machine, of ``fp32`` and ``bf16``."""

    def open(self, subject: Any, threads: int, batch: int | None, precision: str) -> Callable[[], Sequence[Any]]:
        """Return what runs the subject once, on inputs of its own, and returns the outputs."""

    def profile(self, subject: Any, threads: int, batch: int | None, precision: str) -> Sequence[Any]:
        """Return the time of each operator, as ``LayerTime``."""


@runtime_checkable
class Targeted(Protocol):
    """A cost that depends on the hardware: ``upon`` returns it for a target."""

    def upon(self, target: Target) -> Cost:
        """Return the cost on this target."""


class Rewrite(Protocol):
    """One kind of change. All choices of a rewrite are applied together, since sites share axes."""

    def find(self, graph: Any) -> list[Site]:
        """List the sites this rewrite can change."""

    def apply(self, model: nn.Module, graph: Any, kept: Mapping[str, Kept]) -> None:
        """Change ``model`` in place."""


@runtime_checkable
class Zeroing(Protocol):
    """A rewrite that sets entries to zero and changes no shape: drafts count them, and training holds them."""

    def zeros(self, graph: Any, kept: Mapping[str, Kept]) -> Mapping[str, Tensor]:
        """Return, by parameter, a mask of its shape, true where the choice sets it to zero."""


@runtime_checkable
class Removing(Rewrite, Protocol):
    """A rewrite that takes whole residual blocks out: drafts leave out what lies in them, and the proof knows it."""

    def removes(self, graph: Any, kept: Mapping[str, Kept]) -> Collection[str]:
        """Return the names, among those of ``graph.blocks``, of the blocks that the choice takes out."""


@runtime_checkable
class Cropping(Rewrite, Protocol):
    """A rewrite that takes outer taps of kernels away: drafts leave them out, the proof zeroes them."""

    def crops(self, graph: Any, kept: Mapping[str, Kept]) -> Mapping[str, tuple[int, ...]]:
        """Return, by weight, how many taps the choice takes away at both ends of each dimension of the kernel."""


@runtime_checkable
class Factoring(Rewrite, Protocol):
    """A rewrite that puts a chain of smaller layers in a layer's place; its units are ranks, which it scores itself."""

    def scores(self, model: nn.Module, site: Site) -> Tensor:
        """Return what each rank of the site holds of its layer, falling, ``[site.size]``; threads ask at once."""

    def chains(self, graph: Any, kept: Mapping[str, Kept], layers: Mapping[int, Layer]) -> Mapping[int, Chain]:
        """Return the chains that take the place of layers under a choice; both by their position in the graph.

        ``layers`` are as the rest of the plan leaves them; those that stay whole have no chain.
        """


@runtime_checkable
class Quantizing(Rewrite, Protocol):
    """A rewrite that rounds weights, and maybe what layers read; its units are bits, which it scores itself."""

    def scores(self, model: nn.Module, site: Site) -> Tensor:
        """Return what each bit of the site brings, falling, ``[site.size]``."""

    def rounded(self, layer: Layer, kept: Kept) -> Layer:
        """Return a layer, as the rest of a plan leaves it, of whose bits these are kept."""


@runtime_checkable
class Seeing(Rewrite, Protocol):
    """A rewrite that looks at what a network does with pictures: steps give it some, unlabelled."""

    def on(self, pictures: Sequence[Tensor]) -> Rewrite:
        """Return the rewrite for these batches."""


class Criterion(Protocol):
    """Scores the units of a site, higher meaning keep."""

    def __call__(self, site: Site, evidence: Any) -> Tensor:
        """Return one score a unit, ``[site.size]``."""


@runtime_checkable
class Cost(Protocol):
    """A number with a unit about a draft of the model."""

    unit: str
    cheap: bool

    def __call__(self, draft: Draft) -> float:
        """Return the cost in ``unit``."""


@runtime_checkable
class Measured(Protocol):
    """A cost that needs pictures: ``on`` returns it for those of a data set that it ``fits``."""

    def fits(self, data: Any) -> bool:
        """Tell, without reading a picture, whether those of this data set tell the cost."""

    def on(self, data: Any, seed: int) -> Cost:
        """Return the cost for this data set."""


@runtime_checkable
class Compared(Protocol):
    """A cost that compares networks with the original: ``beside`` returns it for this one."""

    def beside(self, original: nn.Module) -> Cost:
        """Return the cost that compares with this network."""


class Allocator(Protocol):
    """Chooses a plan: at once, or as a generator that yields plans and receives their trials.

    One that tries many plans has a number ``trials``: how many it asks about at most.
    """

    def __call__(self, problem: Any) -> Plan | Search:
        """Return a plan or a search."""


class Term(Protocol):
    """Something training adds to the loss.

    The loop attaches every term once the model is on its device, adds up what the terms return, and detaches them at
    the end. A term may also have a number ``task_weight``, read at each step: the product over all terms scales the
    task loss. One that wants a teacher is ``Taught`` as well, one that compares channels with an original's
    ``Related``, one that wants to see pictures first ``Shown``, one that changes on the way ``Timed``.
    """

    def attach(self, model: nn.Module) -> list[nn.Parameter]:
        """Prepare for this model; return parameters of the term's own that training shall update."""

    def __call__(self, x: Tensor, outputs: Any, y: Tensor | None) -> Tensor:
        """Return a scalar for one batch, not growing with its size; ``y`` is None where there are no labels.

        ``outputs`` is what the model returned for ``x``. The call runs under the loop's autocast, where outputs may be
        in half precision: take ``.float()`` before a softmax or a norm.
        """

    def after_step(self) -> None:
        """Run after each optimiser step."""

    def detach(self) -> None:
        """Undo ``attach``; what was learned stays with the term."""


@runtime_checkable
class Taught(Protocol):
    """A term that can learn from another model."""

    def teach(self, teacher: nn.Module) -> None:
        """Take this teacher for the coming ``attach``, unless the term's options name one."""


@runtime_checkable
class Related(Protocol):
    """A term that compares what layers compute, channel by channel, with an original that the model was cut from."""

    def relate(self, left: Mapping[str, NDArray[np.bool_]]) -> None:
        """Take, for the coming ``attach``, by the names of modules that lost channels, which of these are left."""


@runtime_checkable
class Shown(Protocol):
    """A term whose parameters have shapes that only running the networks tells."""

    def show(self, x: Tensor) -> None:
        """Take two training samples, on the model's device, for the coming ``attach``."""


@runtime_checkable
class Timed(Protocol):
    """A term that depends on how far the training is."""

    def time(self, steps: int) -> None:
        """Take how many optimiser steps the coming training has, until ``detach``."""


@runtime_checkable
class SelfDriven(Protocol):
    """A term whose own parameters, or some of them, are updated by an optimiser of its own, at its own rate."""

    def optimizer(self) -> Optimizer:
        """Return it, once ``attach`` is done and the parameters lie on the device where they are trained."""


Progress: TypeAlias = Callable[[int, int, str], None]
"""Called with (done, total, text)."""
