"""What holds for every factorisation there is, on layers of every geometry."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from factors.layers import apart, convolutions, error
from penjing.core.errors import PlanError
from penjing.core.registry import build, entries
from penjing.factors.base import Factorization
from penjing.factors.chain import merge
from penjing.factors.layer import read

FORMS: dict[str, object] = {
    "svd output": "svd",
    "svd input": {"svd": {"form": "input"}},
    "svd spatial": {"svd": {"form": "spatial"}},
    "tucker2": "tucker2",
    "cp 3": {"cp": {"sweeps": 4}},
    "cp 4": {"cp": {"modes": 4, "sweeps": 4}},
    "btd": {"btd": {"into": 2, "out": 3, "sweeps": 10}},
    "bicluster": {"bicluster": {"inputs": 1, "outputs": 2}},
    "depthwise_separable": "depthwise_separable",
    "shift": "shift",
    "grouped_shuffle": {"grouped_shuffle": {"groups": 2}},
}
every = pytest.mark.parametrize("form", FORMS)


def made(form: str) -> Factorization:
    found = build("factorization", FORMS[form])
    assert isinstance(found, Factorization)
    return found


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@every
@settings(max_examples=12, deadline=None, derandomize=True)
@given(conv=convolutions(), shares=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_full_rank_is_the_layer_and_merges(form: str, conv: nn.Conv2d, shares: tuple[float, float]) -> None:
    factorization, spec = made(form), read(conv)
    if factorization.refuses(spec):
        with pytest.raises(PlanError, match=r"Conv2d\(.*cannot be factored"):
            factorization.split(conv, factorization.full(spec))
        return
    full = factorization.full(spec)
    chain = factorization.split(conv.double(), full)
    x = torch.randn(2, conv.in_channels, 9, 8, dtype=torch.float64)
    assert apart(conv, chain, x) < 1e-9
    ranks = tuple(1 + int(share * (n - 1)) for n, share in zip(full, shares, strict=False))
    low = factorization.split(conv, ranks)
    stages = factorization.stages(spec, ranks)
    assert {name: read(stage) for name, stage in low.named_children()} == stages
    assert factorization.cost(spec, ranks, (9, 8)).params == sum(p.numel() for p in low.parameters())
    again = merge(low)
    assert read(again) == spec
    assert apart(low, again, x) < 1e-9
    lost = sum(float(axis.energies[r:].sum()) for axis, r in zip(factorization.spectra(conv), ranks, strict=True))
    assert error(conv, again) <= lost + 1e-9, "the energies bound what a rank loses"


@every
def test_what_is_foretold_is_what_runs(form: str) -> None:
    factorization, conv = made(form), nn.Conv2d(8, 12, 3, stride=2, padding=1)
    spec = read(conv)
    ranks = tuple(max(1, n // 2) for n in factorization.full(spec))
    cost = factorization.cost(spec, ranks, (11, 10))
    x, sizes, macs = torch.randn(1, 8, 11, 10), [], 0
    for stage in factorization.split(conv, ranks):
        x = stage(x)
        sizes.append(tuple(x.shape[1:]))
        weight = getattr(stage, "weight", None)
        macs += 0 if weight is None else weight[0].numel() * x.numel()
    assert cost.sizes == tuple(sizes)
    assert cost.macs == macs


@every
def test_twice_is_the_same_to_the_bit_and_draws_nothing(form: str) -> None:
    factorization, conv = made(form), nn.Conv2d(8, 12, 3, padding=1)
    ranks = tuple(max(1, n // 3) for n in factorization.full(read(conv)))
    before = torch.get_rng_state()
    one, two = (factorization.split(conv.eval(), ranks) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not one[-1].training
    assert next(iter(one.parameters())).dtype == torch.float32


def test_every_exact_factorisation_is_here() -> None:
    known = {name for name, entry in entries("factorization").items() if entry.exact}
    assert known == {made(form).name for form in FORMS}


@every
def test_weights_of_zero_give_zero(form: str) -> None:
    factorization, conv = made(form), nn.Conv2d(8, 12, 3, padding=1, bias=False)
    nn.init.zeros_(conv.weight)
    chain = factorization.split(conv, tuple(max(1, n // 2) for n in factorization.full(read(conv))))
    assert not chain(torch.randn(1, 8, 5, 5)).any()
    assert all(bool(axis.energies.abs().sum() == 0) for axis in factorization.spectra(conv))


@every
def test_bad_input_is_one_sentence_that_names_the_layer(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    factorization, conv = made(form), nn.Conv2d(8, 12, 3, padding=1)
    full = factorization.full(read(conv))
    for wrong in (0, -1, max(full) + 1, [n + 1 for n in full], (1,) * (len(full) + 1), True):
        with pytest.raises(PlanError, match=r"stem.* cannot be factored by .* with ranks .*; it takes"):
            factorization.split(conv, wrong, "stem")
    with pytest.raises(PlanError, match=r"body cannot be factored.*depthwise"):
        factorization.split(nn.Conv2d(8, 16, 3, groups=8), 1, "body")
    with pytest.raises(PlanError, match="norm is a BatchNorm2d"):
        factorization.split(nn.BatchNorm2d(8), 1, "norm")
    with pytest.raises(PlanError, match="head is lazy"):
        factorization.split(nn.LazyConv2d(8, 3), 1, "head")
    with pytest.raises(PlanError, match="on the meta device"):
        factorization.split(conv.to("meta"), 1, "stem")
    conv = nn.Conv2d(8, 12, 3, padding=1)
    monkeypatch.setattr("penjing.factors.memory.available", lambda: 1000)
    for ask in (factorization.spectra, lambda m, n: factorization.split(m, full, n)):
        with pytest.raises(PlanError, match=r"stem: .* needs about .* GiB of memory"):
            ask(conv, "stem")
    monkeypatch.undo()
    conv.weight.data[0, 0, 0, 0] = torch.nan
    for ask in (factorization.spectra, lambda m, n: factorization.split(m, full, n)):
        with pytest.raises(PlanError, match="stem holds 1 weights that are not finite, of 864"):
            ask(conv, "stem")
