"""Evidence: facts about the units of sites, collected in as few passes over the calibration data as possible.

Criteria ask for what they need, site by site; the first question of a kind runs the data once for all sites and
keeps the answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from hashlib import blake2b
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from penjing.core import console
from penjing.core.errors import PlanError
from penjing.core.modes import modes_kept
from penjing.core.random import derive, torch_stream
from penjing.core.sites import Site, Slot
from penjing.graph.absence import Absence
from penjing.graph.chains import settled
from penjing.graph.graph import Graph
from penjing.graph.judged import logits_of, loss_of
from penjing.graph.tap import Tap
from penjing.graph.views import View, gated, views_of

Batches: TypeAlias = Sequence[tuple[Tensor, Tensor | None]]
Fold: TypeAlias = Callable[[Tensor], Tensor]


class Evidence:
    """Lazily collected, cached facts about a model's sites.

    ``batches`` are calibration batches (inputs, labels or None). Gradients are ``of`` the ``"loss"``, where without
    labels the model's own predictions stand in for them, or of the ``"logits"`` times random signs: the square of
    such a derivative has the squared norm of the logits' derivative as its mean. The model is left as it was found.
    Of one with chains a copy is looked at, so that no score of a rank depends on how a scale is split between stages.
    """

    def __init__(self, model: nn.Module, graph: Graph, batches: Batches = (), seed: int = 0, of: str = "loss") -> None:
        self.model, self._held = settled(model, graph)
        self.graph = graph
        self.batches = batches
        self.seed = seed
        self.of = of
        self._parameters = dict(self.model.named_parameters()) | dict(self.model.named_buffers())
        self._modules = dict(self.model.named_modules())
        self._collected: dict[str, dict[str, list[Tensor]]] = {}
        self._gates: dict[str, Tensor] | None = None
        self._blurred: dict[str, str] = {}
        self._saliency: dict[str, Tensor] | None = None
        self._samples: dict[int, Evidence] = {}
        self._absences: dict[int, Absence] = {}

    # ------------------------------------------------------------------------------------------------- weights

    def rows(self, site: Site, slot: Slot) -> Tensor:
        """Return what one slot holds of each unit.

        Shapes: [units, entries of a unit], float32. A slot with axis -1 counts in the flattened tensor.

        Raises: PlanError when the units hold unequal numbers of entries.
        """
        tensor = self._parameters[slot.tensor].detach().float()
        tensor = tensor.flatten() if slot.axis == -1 else tensor
        if len(slot.index) % site.size or len(np.unique(np.bincount(slot.unit, minlength=site.size))) > 1:
            raise PlanError(f"{site.name} has units of unequal size in {slot.tensor}; let all hold equally many.")
        order = np.argsort(slot.unit, kind="stable")
        index = torch.from_numpy(slot.index[order]).to(tensor.device)
        return tensor.movedim(max(slot.axis, 0), 0).index_select(0, index).reshape(site.size, -1)

    def filters(self, site: Site) -> Tensor:
        """Return the filters that write the site, all layers side by side: [units, entries].

        Where kernels are computed from other parameters, those stand in for the filters. The filter of a rank has the
        norm of all that goes with it, which of a matrix is its singular value.

        Raises: PlanError when no weight writes the site.
        """
        slots = [s for s in site.slots_with("out") if self._parameters[s.tensor].dim() > 1 or s.axis == -1]
        slots = slots or [s for s in site.slots_with("tied") if self._parameters[s.tensor].dim() > 1]
        if not slots:
            raise PlanError(
                f"{site.name} is written by no weight; use a criterion that reads activations, such as hrank."
            )
        return torch.cat([self._whole(slot, self.rows(site, slot)) for slot in slots], dim=1)

    def _whole(self, slot: Slot, rows: Tensor) -> Tensor:
        """Return the filters of ranks, each as long as all that goes with it; others as they are."""
        if slot.tensor not in self._held or slot.axis != 0:
            return rows
        held = self._held[slot.tensor][torch.from_numpy(slot.index[np.argsort(slot.unit, kind="stable")])]
        each = rows.reshape(len(held), -1)
        own = each.norm(dim=1)
        scale = torch.where(own > 0, held.to(each) / own.clamp_min(1e-30), 0.0)
        return (each * scale[:, None]).reshape(rows.shape)

    def scales(self, site: Site) -> list[Tensor]:
        """Return the batch-norm scales of the site, one [units] a norm (mean over the channels of a unit)."""
        found = []
        for slot in site.slots_with("tied"):
            owner, _, attribute = slot.tensor.rpartition(".")
            if attribute == "weight" and isinstance(self._modules.get(owner), nn.modules.batchnorm._NormBase):
                found.append(self.rows(site, slot).abs().mean(1))
        return found

    # --------------------------------------------------------------------------------------------- activations

    def sample(self, images: int) -> Evidence:
        """Return the evidence of at most this many of the samples; chosen by seed and content, in whatever order."""
        if sum(len(x) for x, _ in self.batches) <= images:
            return self
        if images not in self._samples:
            ranked = sorted(
                (self._mark(row, "sample"), b, r) for b, (x, _) in enumerate(self.batches) for r, row in enumerate(x)
            )
            chosen: dict[int, list[int]] = {}
            for _, b, r in sorted(ranked[:images], key=lambda key: key[1:]):
                chosen.setdefault(b, []).append(r)
            picked = [
                (x[rows], None if y is None else y[rows]) for b, rows in chosen.items() for x, y in [self.batches[b]]
            ]
            self._samples[images] = Evidence(self.model, self.graph, picked, self.seed)
        return self._samples[images]

    def _mark(self, row: Tensor, use: str) -> str:
        """Return a random name of one sample, which depends on seed, use and content but not on where it stands."""
        salt = derive(self.seed, f"evidence/{use}").to_bytes(8, "little")
        return blake2b(row.float().cpu().numpy().tobytes(), digest_size=8, salt=salt).hexdigest()

    def collect(self, site: Site, key: str, fold: Fold, *, join: bool = False) -> list[Tensor]:
        """Stream what each layer reads of the site through ``fold``; return one result a reading layer.

        ``fold`` receives activations [n, units, repeats, *positions] of one batch (positions:
        height and width of a convolution, none for a linear layer on vectors) and returns a tensor that is
        summed over batches, or, with ``join``, concatenated along the first dimension. ``repeats`` exceeds one where
        a unit spans several channels. Of a site that no layer reads (queries of an attention, say), what its layers
        write is streamed. ``key`` names the fold: the pass runs once for all sites and is kept.

        Raises: PlanError when there are no calibration batches, or the site has no activations.
        """
        self._need_views(site)
        if key not in self._collected:
            self._collected[key] = self._stream(key, fold, join)
        found = self._collected[key][site.name]
        if not found:
            raise PlanError(
                f"{site.name} was not seen while the model ran; use a criterion that reads weights, such as l1."
            )
        return found

    def _stream(self, key: str, fold: Fold, join: bool) -> dict[str, list[Tensor]]:
        self._need_batches("activations")
        folded: dict[View, list[Tensor]] = {view: [] for views in self._views.values() for view in views}

        def after(i: int, x: Tensor, y: Tensor) -> None:
            for view in self._views.get(i, []):
                result = fold(view.by_unit(y if view.written else x))
                kept = folded[view]
                if join or not kept:
                    kept.append(result)
                else:
                    kept[0] = kept[0] + result

        with self._still(), torch.no_grad():
            for x, _ in console.track(self.batches, f"collecting {key}"):
                with Tap(self.model, self.graph, after=after):
                    self.model(x)
        found: dict[str, list[Tensor]] = {view.site.name: [] for view in folded}
        for view, results in folded.items():
            if results:
                found[view.site.name].append(torch.cat(results) if join else results[0])
        return found

    @cached_property
    def _views(self) -> dict[int, list[View]]:
        """For each layer, by position in the graph: the sites it reads, or writes if nothing reads them."""
        return views_of(self.graph)

    def _need_views(self, site: Site) -> None:
        if not any(view.site.name == site.name for views in self._views.values() for view in views):
            raise PlanError(
                f"No layer reads or writes {site.name} as channels ({site.kind}), so it has no activations; "
                "use a criterion that reads weights, such as l1."
            )

    # ------------------------------------------------------------------------------------------------- absence

    def absence(self, images: int) -> Absence:
        """Return what leaving out blocks does to the outputs for at most this many of the samples.

        Raises: PlanError when there are no calibration batches.
        """
        self._need_batches("activations")
        if images not in self._absences:
            share = min(1.0, images / sum(len(x) for x, _ in self.batches))
            self._absences[images] = Absence(self.model, self.graph, self.sample(images).batches, share)
        return self._absences[images]

    # ----------------------------------------------------------------------------------------------- gradients

    @cached_property
    def of_logits(self) -> Evidence:
        """The same evidence with gradients of the logits, which do not vanish where the loss does."""
        return Evidence(self.model, self.graph, self.batches, self.seed, of="logits")

    def gate_gradients(self, site: Site) -> Tensor:
        """Return, for each sample, the derivative of its loss by a gate on each unit, at gate one.

        The gate multiplies the unit wherever a layer reads it: the derivative is the sum, over readers and
        positions, of activation times gradient. A depthwise convolution hands its units on and so needs no gate of
        its own, which would count them twice. Shapes: [samples, units].

        Raises: PlanError when there are no calibration batches, the site has no activations, or the loss can tell
        nothing about it.
        """
        self._need_views(site)
        if self._gates is None:
            self._gates = self._all_gate_gradients()
        if site.name in self._blurred:
            raise PlanError(
                f"{self._blurred[site.name]}, so that the gradients at {site.name} cannot be told apart by sample; "
                "use a criterion that reads activations or weights, such as hrank or l1, or leave it out."
            )
        if site.name not in self._gates:
            if self._matters(site):
                raise PlanError(
                    f"The loss tells nothing about {site.name}: it feeds another output than the first, or forward "
                    "detaches it. Use a criterion that reads activations or weights, such as hrank or l1, or leave it "
                    "out."
                )
            self._gates[site.name] = torch.zeros(sum(len(x) for x, _ in self.batches), site.size)
        return self._gates[site.name]

    def _matters(self, site: Site) -> bool:
        """Tell whether any output changes when the units of the site are silent."""

        def before(i: int, x: Tensor) -> Tensor:
            for view in self._views.get(i, []):
                if view.site.name == site.name and not view.written:
                    x = x.index_fill(view.dim, view.index.to(x.device), 0)
            return x

        def after(i: int, _: Tensor, y: Tensor) -> None:
            for view in self._views.get(i, []):
                if view.site.name == site.name and view.written:
                    y.index_fill_(view.dim, view.index.to(y.device), 0)

        x = self.batches[0][0]
        with self._still(), torch.no_grad():
            usual = tree_leaves(self.model(x))
            with Tap(self.model, self.graph, before, after):
                silent = tree_leaves(self.model(x))
        pairs = zip(usual, silent, strict=True)
        return any(isinstance(a, Tensor) and not torch.equal(a, b) for a, b in pairs)

    def _all_gate_gradients(self) -> dict[str, Tensor]:
        self._need_batches("gradients")
        gates = gated(self._views)
        rows: dict[str, list[Tensor]] = {}
        with self._still(), torch.enable_grad():
            for x, y in console.track(self.batches, "collecting gradients"):
                for name, sums in self._gate_sums(gates, x, y).items():
                    rows.setdefault(name, []).append(sums)
        return {name: torch.cat(parts) for name, parts in rows.items()}

    def _gate_sums(self, gates: Mapping[int, list[View]], x: Tensor, y: Tensor | None) -> dict[str, Tensor]:
        """Return the derivatives of one batch by site, of every site that the loss depends on."""
        sums: dict[str, Tensor] = {}

        def listen(i: int, watched: Tensor, written: bool) -> None:
            views = [view for view in gates.get(i, []) if view.written == written]
            if not views or not watched.requires_grad:
                return
            # An activation may yet be changed in place, what a layer reads may not.
            value = watched.detach().clone() if written else watched.detach()

            def hook(grad: Tensor) -> None:
                product = value.float() * grad.float()
                for view in views:
                    share = view.by_unit(product).flatten(2).sum(2)
                    if len(share) % len(x):
                        where = self.graph.layers[i].name
                        self._blurred[view.site.name] = f"{where} reads {len(share)} rows from {len(x)} samples"
                        continue
                    share = share.view(len(x), -1, share.shape[1]).sum(1)
                    sums[view.site.name] = sums[view.site.name] + share if view.site.name in sums else share

            watched.register_hook(hook)

        def before(i: int, x: Tensor) -> Tensor:
            if i not in gates or not x.requires_grad:
                return x
            read = x.view_as(x)  # a hook on x itself would hear its other readers too
            listen(i, read, written=False)
            return read

        def after(i: int, _: Tensor, y: Tensor) -> None:
            listen(i, y, written=True)

        with Tap(self.model, self.graph, before, after):
            outputs = self.model(x)
        self._loss(outputs, x, y).backward()
        return sums

    def saliency(self, name: str) -> Tensor:
        """Return the summed squares of weight times gradient of a parameter, one term a batch; shape as the weight.

        The gradient is that of the mean loss of the batch.
        """
        if self._saliency is None:
            self._saliency = self._all_saliency()
        return self._saliency[name]

    def _all_saliency(self) -> dict[str, Tensor]:
        self._need_batches("gradients")
        total = {n: torch.zeros_like(p, dtype=torch.float32) for n, p in self.model.named_parameters()}
        with self._still(), torch.enable_grad():
            for x, y in console.track(self.batches, "collecting gradients"):
                self.model.zero_grad(set_to_none=True)
                (self._loss(self.model(x), x, y) / len(x)).backward()
                for n, p in self.model.named_parameters():
                    if p.grad is not None:
                        total[n] += (p.detach().float() * p.grad.float()) ** 2
        return total

    def _loss(self, outputs: object, x: Tensor, y: Tensor | None) -> Tensor:
        if self.of == "loss":
            return loss_of(outputs, y)
        logits = logits_of(outputs, len(x))
        return (logits * self._signs(x, logits.shape[1]).to(logits)).sum()

    def _signs(self, x: Tensor, n: int) -> Tensor:
        """Return n random signs a sample, each sample's own."""
        draws = [torch.randint(0, 2, (n,), generator=torch_stream(0, self._mark(row, "signs"))) for row in x]
        return torch.stack(draws) * 2 - 1

    def _need_batches(self, what: str) -> None:
        if not self.batches:
            raise PlanError(
                f"The criterion needs {what}, and so calibration data; pass data, or take one that reads weights: l1."
            )

    @contextmanager
    def _still(self) -> Iterator[None]:
        """Run in eval mode with gradients on for parameters, and restore both and the gradients there were."""
        wanted = {p: (p.requires_grad, p.grad) for p in self.model.parameters()}
        for p in wanted:
            p.requires_grad_(True)
            p.grad = None
        try:
            with modes_kept(self.model):
                self.model.eval()
                yield
        finally:
            for p, (flag, grad) in wanted.items():
                p.grad = grad
                p.requires_grad_(flag)
