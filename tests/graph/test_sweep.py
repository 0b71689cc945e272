"""The proof sweep: hostile and random networks, cut in half and to the bone, and the ways it must be able to fail."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nets.file_gap import gap_of_file
from nets.hostile import HOSTILE
from penjing.core.errors import PenjingError
from penjing.core.units import Kept
from penjing.graph.proof import difference, prove
from penjing.graph.rules import table
from penjing.graph.rules.table import Call, Result
from penjing.graph.surgery import cut
from penjing.graph.trace import plain, trace

from .checks import eager, half, hostile, outputs, random_network, single, told, troubles

SUITE = range(25)
SLOW = range(25, 400)
ENOUGH = 0.8

STIFF = {
    "first_channel_as_gate": "is picked by a constant channel number",
    "convnext_block": "is normalised together with all channels by layer_norm",
    "patch_embedding": "is normalised together with all channels by layer_norm",
    "response_norm": "is reduced over its channels by mean",
    "attention_over_channels": "takes part in softmax over its channels",
    "attention_scaled_by_shape": "could not be proved",
    "attention_builtin": "is summed over in attention",
    "cosine_classifier": "is reduced over its channels by linalg_vector_norm",
    "bilinear_pooling": "is merged with another labelled dimension",
    "softmax_over_channels": "takes part in softmax over its channels",
    "recurrent_over_rows": "passes through lstm, an operator without a rule",
    "convolutional_recurrence": "meets a tensor whose size cannot change",
    "frequency_filter": "passes through fft_rfft2, an operator without a rule",
    "assign_to_slices": "meets a tensor whose size cannot change",
}
"""Networks no text names and no constant explains that keep more than a fifth, and the reason that must be given."""


@pytest.mark.parametrize("name", HOSTILE)
def test_cut_hostile_network_is_sound(name: str) -> None:
    net = hostile(name)
    assert troubles(net, half(net.graph, seed=1)) == []
    assert troubles(net, single(net.graph, seed=2), thorough=False) == []


@pytest.mark.parametrize("name", HOSTILE)
def test_enough_is_free(name: str) -> None:
    case, net = HOSTILE[name], hostile(name)
    graph = net.graph
    assert graph.free + sum(note.units for note in graph.notes) == graph.total
    assert all(note.why and note.units > 0 for note in graph.notes)
    if case.named:
        assert net.share_named >= ENOUGH, graph.notes
    elif case.constant is None and name not in STIFF:
        assert graph.share_free >= ENOUGH, graph.notes
    if name in STIFF:
        assert graph.share_free < ENOUGH, f"{name} has become free; take it out of STIFF"
        assert any(STIFF[name] in note.why for note in graph.notes), graph.notes


@pytest.mark.parametrize("seed", SUITE)
def test_cut_random_network_is_sound(seed: int) -> None:
    net = random_network(seed)
    assert troubles(net, half(net.graph, seed), thorough=seed % 2 == 0) == []
    assert net.share_named >= ENOUGH, net.graph.notes


@pytest.mark.slow
@pytest.mark.parametrize("seed", SLOW)
def test_cut_many_random_networks_is_sound(seed: int) -> None:
    net = random_network(seed)
    assert troubles(net, half(net.graph, seed)) == []
    assert troubles(net, single(net.graph, seed)) == []
    assert net.share_named >= ENOUGH, net.graph.notes


EXPORTED = [name for name, case in HOSTILE.items() if case.named][::8]
PARITY = 1e-4


@pytest.mark.parametrize("name", EXPORTED)
def test_exported_cut_network_agrees(name: str, tmp_path: Path) -> None:
    net = hostile(name)
    assert gap_of_file(net.small(half(net.graph, seed=3)), net.args, net.kwargs, tmp_path / "cut.onnx") <= PARITY


@pytest.mark.slow
@pytest.mark.parametrize("name", [*HOSTILE, *SLOW])
def test_every_exported_cut_network_agrees(name: str | int, tmp_path: Path) -> None:
    net = hostile(name) if isinstance(name, str) else random_network(name)
    try:
        gap = gap_of_file(net.small(half(net.graph, seed=3)), net.args, net.kwargs, tmp_path / "cut.onnx")
    except PenjingError:
        with pytest.raises(PenjingError):
            gap_of_file(net.model, net.args, net.kwargs, tmp_path / "whole.onnx")
        pytest.skip("ONNX has no form of the whole network either")
    assert gap <= PARITY


# ----------------------------------------------------------------------------------- a second, independent oracle


class Masked:
    """Multiplies what modules read by a mask of the channels that stay, told by the author of the network."""

    def __init__(self, model: nn.Module, masks: dict[str, Tensor]) -> None:
        self.model = copy.deepcopy(model)
        for name, mask in masks.items():
            self.model.get_submodule(name).register_forward_pre_hook(self.hook(mask))

    @staticmethod
    def hook(mask: Tensor) -> Any:
        def before(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            x = inputs[0]
            return (x * mask.view(-1, *[1] * (x.dim() - 2)),)

        return before


def ones_but(size: int, gone: list[int]) -> Tensor:
    mask = torch.ones(size)
    mask[gone] = 0
    return mask


READERS: dict[str, dict[str, dict[str, list[int]]]] = {
    # site: {reading module: the channels of its input that removing units 1 and 4 of the site takes}
    "plain_chain": {"body.0.0": {"body.1.0": [1, 4]}, "body.1.0": {"body.2.0": [1, 4]}},
    "residual": {"stem.0": {"blocks.0.0.0": [1, 4], "blocks.1.0.0": [1, 4], "head.2": [1, 4]}},
    "independent_branches_concat": {"left.0": {"join.0": [1, 4]}, "right.0": {"join.0": [11, 14]}},
    "concat_with_itself": {"stem.0": {"conv.0": [1, 4, 17, 20]}},
    "flatten_module": {"body.2.0": {"fc1": [*range(16, 32), *range(64, 80)]}},
    "flatten_channels_last": {"body.1.0": {}, "body.2.0": {"fc1": [p * 10 + c for p in range(16) for c in (1, 4)]}},
    "unet_transposed": {"down1.0": {"down2.0": [1, 4], "merge1.0": [1, 4]}, "up1": {"merge1.0": [9, 12]}},
    "pixel_shuffle": {"body.1": {"refine.0": [1, 4]}},
    "squeeze_excite_conv": {"stem.0": {"squeeze": [1, 4], "conv.0": [1, 4]}},
    "depthwise": {"stem.0": {"point.0": [1, 4]}},
}


@pytest.mark.parametrize("name", READERS)
def test_cut_equals_hooks_that_mask_the_readers(name: str) -> None:
    net = hostile(name)
    for site, readers in READERS[name].items():
        if not readers:
            continue
        size = net.graph.site(site).size
        kept = {site: np.setdiff1d(np.arange(size), [1, 4])}
        modules = dict(net.model.named_modules())
        widths = {r: getattr(modules[r], "in_channels", None) or modules[r].in_features for r in readers}
        masks = {reader: ones_but(widths[reader], gone) for reader, gone in readers.items()}
        example = (net.args, net.kwargs)
        masked = outputs(Masked(net.model, masks).model, example)
        assert difference(masked, outputs(net.small(kept), example)) < 1e-5, site
        whole = outputs(net.model, example)
        assert difference(masked, whole) > 1e-4, f"removing units of {site} changes nothing: the test is blind"


# ------------------------------------------------------------------------------------------- it must be able to fail

FRAGILE = (
    "plain_chain",
    "residual",
    "dense_concat",
    "independent_branches_concat",
    "option_a_shortcut",
    "grouped_4",
    "chunk_halves",
    "flatten_channels_last",
    "unet_transposed",
    "shufflenet_v2_unit",
    "squeeze_excite_conv",
    "scaled_kernel",
)


@pytest.mark.parametrize("name", FRAGILE)
def test_proof_rejects_other_units_than_planned(name: str) -> None:
    net = hostile(name)
    planned = half(net.graph, seed=1)
    other = {site: (units + 1) % net.graph.site(site).size for site, units in planned.items()}
    wrong = net.small({site: np.sort(units) for site, units in other.items()})
    assert not prove(net.graph, net.model, wrong, planned).ok


@pytest.mark.parametrize("name", FRAGILE)
def test_proof_rejects_one_wrong_slot(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each tensor in turn loses the right number of channels, but the mirror image of the right ones."""
    net = hostile(name)
    kept = {s.name: np.arange(s.size // 3, s.size) for s in net.graph.sites}
    example = (net.args, net.kwargs)
    right = outputs(net.small(kept), example)
    for i, axis in enumerate(net.graph.axes):
        mirrored = copy.copy(axis)
        object.__setattr__(mirrored, "units", axis.units[::-1].copy())
        axes = (*net.graph.axes[:i], mirrored, *net.graph.axes[i + 1 :])
        wrong = copy.copy(net.graph)
        object.__setattr__(wrong, "axes", axes)
        small = copy.deepcopy(net.model)
        cut(small, wrong, kept)
        if difference(right, outputs(small, example)) > 1e-3:
            assert not prove(net.graph, net.model, small, kept).ok, axis.tensor
        else:
            assert axis.tensor.endswith(("bias", "num_batches_tracked")), f"nothing rests on {axis.tensor}"


@pytest.mark.parametrize("name", FRAGILE)
def test_proof_rejects_a_forgotten_slot(name: str) -> None:
    net = hostile(name)
    kept = half(net.graph, seed=1)
    for i in range(len(net.graph.axes)):
        wrong = copy.copy(net.graph)
        object.__setattr__(wrong, "axes", (*net.graph.axes[:i], *net.graph.axes[i + 1 :]))
        small = copy.deepcopy(net.model)
        cut(small, wrong, kept)
        assert not prove(net.graph, net.model, small, kept).ok, net.graph.axes[i].tensor


def reversed_cat(call: Call) -> Result:
    """A rule that is wrong: it takes the parts of a concat for standing in reverse order."""
    right = table.RULES["true cat"]
    call.args["tensors"] = list(reversed(call.args["tensors"]))
    return right(call)


def blind_add(call: Call) -> Result:
    """A rule that is wrong: it forgets that the operands of an addition are tied."""
    x = call.tensors()[0]
    return call.tagged(call.dims(x))


def unpinned_mean(call: Call) -> Result:
    """A rule that is wrong: it lets channels go under a mean over them."""
    x = call.tensors()[0]
    dims = [d % len(x.shape) for d in call["dim"]]
    return call.tagged([call.dim(x, d) if d not in dims else None for d in range(len(x.shape))])


WRONG = [
    ("independent_branches_concat", "cat", reversed_cat),
    ("module_dict", "cat", reversed_cat),
    ("dense_concat", "cat", reversed_cat),
    ("unet_transposed", "cat", reversed_cat),
    ("residual", "add", blind_add),
    ("inverted_residual", "add", blind_add),
    ("centred_over_channels", "mean", unpinned_mean),
]


@pytest.mark.parametrize(("name", "operator", "rule"), WRONG)
def test_a_wrong_rule_is_pinned_and_never_believed(
    name: str, operator: str, rule: table.Rule, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = HOSTILE[name]
    model, (args, kwargs) = plain(case.build()), case.inputs()
    right = hostile(name).graph  # before the patch, since it is kept
    monkeypatch.setitem(table.RULES, "true cat", table.RULES["cat"])
    monkeypatch.setitem(table.RULES, operator, rule)
    graph = trace(model, args, kwargs)
    unproved = [note for note in graph.notes if "could not be proved" in note.why]
    assert unproved, "the wrong rule was believed"
    assert graph.share_free <= right.share_free
    kept = half(graph, seed=1)
    small = copy.deepcopy(model)
    cut(small, graph, kept)
    certificate = prove(graph, model, small, kept)
    assert certificate.ok, told(certificate)


def test_without_its_proof_a_wrong_rule_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the control: it is the proof, and nothing else, that catches the rule above."""
    case = HOSTILE["residual"]
    model, (args, kwargs) = plain(case.build()), case.inputs()
    monkeypatch.setitem(table.RULES, "add", blind_add)
    graph = trace(model, args, kwargs, proof=False)
    assert not any("could not be proved" in note.why for note in graph.notes)


def test_eager_oracle_covers_many_networks() -> None:
    """The oracle that needs no interpreter must not be one that never speaks."""
    asked = 0

    def ask(net: Any, kept: dict[str, Kept]) -> bool:
        shifted = {site: np.sort((units + 1) % net.graph.site(site).size) for site, units in kept.items()}
        return eager(net, kept, net.small(shifted)) != []

    for name in list(HOSTILE)[:60]:
        net = hostile(name)
        asked += ask(net, half(net.graph, seed=1))
    assert asked >= 25
