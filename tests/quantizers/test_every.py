"""What holds for every method: stored equals computed, no step is 0 or nan, a state fills a new module."""

import pytest
import torch

from penjing.core.errors import PlanError
from penjing.core.registry import build
from penjing.quantizers.base import Quantizer, Reads
from penjing.quantizers.uniform import EvenReads

METHODS = ["lsq", "pact", "dorefa", "dsq", "fixed", "ttq"]
VARIANTS = [
    *METHODS,
    {"lsq": {"per_filter": True}},
    {"lsq": {"start": "mean"}},
    {"fixed": {"per_filter": True, "start": "max"}},
    {"dsq": {"start": "range"}},
]
READING = [
    *({"lsq": {"start": start}} for start in ("mean", "max", "percentile", "mse", "entropy")),
    {"dorefa": {"activations": "same"}},
    {"dorefa": {"activations": "same", "clip": 1.0}},
    "pact",
    {"pact": {"clip": 8.0}},
    "dsq",
    {"dsq": {"start": "range"}},
    "fixed",
]


def made(spec: object) -> Quantizer:
    quantizer = build("quantizer", spec)
    assert isinstance(quantizer, Quantizer)
    return quantizer


def reads(spec: object, bits: int) -> Reads:
    found = made(spec).reads(3, bits)
    assert found is not None
    return found


def weights() -> dict[str, torch.Tensor]:
    chance = torch.Generator().manual_seed(0)
    usual = torch.randn(6, 4, 3, 3, generator=chance) * torch.arange(6).view(6, 1, 1, 1)  # the first filter is zeros
    return {
        "usual": usual, "linear": torch.randn(5, 7, generator=chance), "zeros": torch.zeros(2, 3),
        "constant": torch.full((2, 3, 1, 1), 0.3), "tiny": 1e-12 * usual, "one": torch.tensor([[-0.7]]),
        "outlier": torch.cat([torch.randn(1, 999, generator=chance), torch.tensor([[1e4]])], 1),
    }  # fmt: skip


@pytest.mark.parametrize("spec", VARIANTS, ids=str)
def test_what_is_stored_is_what_is_computed_with(spec: object) -> None:
    for bits in made(spec).widths:
        for name, weight in weights().items():
            module = made(spec).weights(tuple(weight.shape), bits)
            latent = torch.nn.Parameter(module.start(weight))
            for _ in range(2):
                found = module(latent)
                assert torch.equal(module.levels(latent).values(), found.detach()), (bits, name)
                assert bool(found.isfinite().all())
                found.square().sum().backward()
                with torch.no_grad():
                    for one in (latent, *module.parameters()):
                        assert one.grad is not None
                        assert bool(one.grad.isfinite().all()), (bits, name)
                        one -= 0.3 * one.grad  # far enough for a step to want to be negative
                    module.after_step(latent, 0.5)


@pytest.mark.parametrize("spec", [one for one in VARIANTS if one != "ttq"], ids=str)
@torch.no_grad()
def test_more_bits_are_nearer_to_the_trained_weight(spec: object) -> None:
    weight = torch.randn(8, 8, 3, 3, generator=torch.Generator().manual_seed(0)) * 0.05
    gaps = []
    for bits in (2, 4, 8):
        module = made(spec).weights(tuple(weight.shape), bits)
        gaps.append(float((module(module.start(weight)) - weight).square().sum() / weight.square().sum()))
    assert gaps[0] > gaps[1] > gaps[2]
    if isinstance(spec, str):  # at 2 bits the formula clips much, and what clips nothing rounds most to zero
        assert gaps[0] < 0.5
    assert gaps[2] < 0.002


@pytest.mark.parametrize("spec", READING, ids=str)
@pytest.mark.parametrize("signed", [False, True])
def test_what_layers_read_lies_on_a_grid_that_is_never_empty(spec: object, signed: bool) -> None:
    chance = torch.Generator().manual_seed(1)
    usual = torch.randn(4, 3, 8, 8, generator=chance)
    usual = usual if signed else usual.relu()
    outlier = usual.clone()
    outlier[0, 0, 0, 0] = 1e6
    cases = {
        "usual": usual, "outlier": outlier, "zeros": torch.zeros(4, 3, 8, 8), "constant": torch.full((4, 3, 8, 8), 0.3),
        "one": usual[:1], "flat": torch.rand(4, 3, generator=chance) - 0.5 * signed,
    }  # fmt: skip
    for bits in (2, 3, 8):
        for name, samples in cases.items():
            module = reads(spec, bits)
            module.start(samples)
            x = samples.clone().requires_grad_()
            found = module.train()(x)
            grid = module.grid()  # type: ignore[operator]
            assert 0 < float(grid.step) < float("inf")
            assert torch.equal(found.detach(), grid.values(grid.codes(samples))), (bits, name)
            assert len(found.detach().unique()) <= 2**bits
            found.square().sum().backward()
            for one in (x, *module.parameters()):
                assert one.grad is not None
                assert bool(one.grad.isfinite().all()), (bits, name)
        module.requires_grad_(False).start(usual)
        if bits == 8 and "clip" not in str(spec):
            assert float((module(usual) - usual).square().mean() / usual.square().mean()) < 0.01
        if isinstance(module, EvenReads):
            assert bool(module.lowest < 0) == signed
            assert torch.equal(module(torch.zeros(1, 3, 2, 2)), torch.zeros(1, 3, 2, 2))


@pytest.mark.parametrize("spec", READING, ids=str)
def test_what_is_not_finite_is_refused(spec: object) -> None:
    with pytest.raises(PlanError, match="not finite"):
        reads(spec, 4).start(torch.tensor([[1.0, float("nan"), 2.0]]))


@pytest.mark.parametrize("spec", METHODS)
def test_a_state_fills_a_new_module(spec: str) -> None:
    quantizer, weight = made(spec), weights()["usual"]
    old, new = (quantizer.weights(tuple(weight.shape), 2) for _ in range(2))
    latent = old.start(weight)
    new.load_state_dict(old.state_dict())
    assert torch.equal(new(latent), old(latent))
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    first, second = quantizer.reads(3, 2), quantizer.reads(3, 2)
    if first is not None and second is not None:
        first.start(x)
        second.load_state_dict(first.state_dict())
        assert torch.equal(first(x), second(x))


@pytest.mark.parametrize("spec", METHODS)
def test_bits_that_a_method_has_not_are_refused_by_its_name(spec: str) -> None:
    quantizer = made(spec)
    for bits in (min(quantizer.widths) - 1, max(quantizer.widths) + 1):
        with pytest.raises(PlanError, match=rf"{spec}: weights have .*got {bits}"):
            quantizer.weights((2, 3), bits)
    if spec != "ttq":
        with pytest.raises(PlanError, match=rf"{spec}: activations have .*got 9"):
            made({spec: {"activations": 9}})


@pytest.mark.parametrize(
    ("spec", "what"),
    [
        ({"ttq": {"delta": 1.0}}, "delta"),
        ({"dsq": {"alpha": 0.7}}, "alpha"),
        ({"dsq": {"share": 0.2}}, "share"),
        ({"pact": {"clip": 0.0}}, "clip"),
        ({"pact": {"decay": -1.0}}, "decay"),
        ({"pact": {"activations": None}}, "dorefa"),
        ({"dorefa": {"clip": -1.0}}, "clip"),
        ({"dorefa": {"gradients": 0}}, "gradients"),
    ],
)
def test_options_that_cannot_be(spec: object, what: str) -> None:
    with pytest.raises(PlanError, match=what):
        made(spec)


def test_one_bit_tells_no_signs() -> None:
    with pytest.raises(PlanError, match="2 bits or more"):
        reads({"dorefa": {"activations": 1}}, 1).start(torch.tensor([[-1.0, 1.0]]))
