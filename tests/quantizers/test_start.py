"""Every method begins on one picture, on pictures of one colour and on weights of zero, or says why not."""

import pytest
import torch
from torch import nn

from penjing.core.errors import PlanError
from penjing.core.registry import build, entries
from penjing.graph.quantized import Precision, attach, start
from penjing.quantizers.base import Quantizer

ONE_COLOUR, NOTHING = torch.full((4, 8, 6, 6), 0.5), torch.zeros(4, 8, 6, 6)


def usual() -> torch.Tensor:
    return torch.randn(4, 8, 6, 6, generator=torch.Generator().manual_seed(0))


def made(name: str, weight: torch.Tensor | None = None) -> nn.Sequential:
    quantizer = build("quantizer", name)
    assert isinstance(quantizer, Quantizer)
    model = nn.Sequential(nn.Conv2d(8, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 3)).eval()
    if weight is not None:
        with torch.no_grad():
            model[0].weight.copy_(weight)
    attach(model, {"0": Precision(quantizer, max(quantizer.widths))})
    return model


@pytest.mark.parametrize("name", entries("quantizer"))
def test_what_is_poor_is_survived(name: str) -> None:
    """Also in training, and with the fewest numbers that a table may have."""
    cases = {"one": (usual()[:1], None), "colour": (ONE_COLOUR, None), "black": (NOTHING, None),
             "zeros": (usual(), 0.0), "constant": (usual(), 0.1)}  # fmt: skip
    for what, (pictures, weight) in cases.items():
        model = made(name, None if weight is None else torch.full((6, 8, 3, 3), weight))
        start(model, ["0"], {"0": pictures})
        out = model.train()(usual())
        out.sum().backward()
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        assert bool(out.isfinite().all()) and all(bool(g.isfinite().all()) for g in grads), what


@pytest.mark.parametrize("name", entries("quantizer"))
def test_a_layer_whose_numbers_are_not_finite_is_named(name: str) -> None:
    weight = torch.ones(6, 8, 3, 3)
    weight[1, 2, 0, 0] = float("nan")
    with pytest.raises(PlanError, match=r"^0 cannot be quantized: its weights hold NaN or infinity; train or load it"):
        start(made(name, weight), ["0"], {"0": usual()})
    pictures = usual()
    pictures[0, 0, 0, 0] = float("inf")
    with pytest.raises(PlanError, match=r"^0 cannot be quantized: on the training pictures it reads NaN or infinity"):
        start(made(name), ["0"], {"0": pictures})
