"""A map that was fitted foretells where its convolution's output is large; it changes nothing yet."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from penjing.graph.collaborative import Kind, Partner, attach, collaborators
from penjing.training.foretell import foretell
from tiny import tiny


@pytest.mark.parametrize(("kind", "least"), [("shared", 0.6), ("pointwise", 0.2)])
def test_what_the_map_reads_goes_with_what_the_relu_returns(kind: Kind, least: float) -> None:
    model = tiny().eval()
    attach(model, {"conv1": Partner(kind, "bn1")})
    layer = collaborators(model)["conv1"]
    rng = torch.Generator().manual_seed(0)
    batches = [torch.randn(16, 3, 8, 8, generator=rng) for _ in range(4)]
    unseen = torch.randn(32, 3, 8, 8, generator=rng)
    before = model(unseen)
    foretell(model, ["conv1"], batches, seed=0)
    assert torch.equal(before, model(unseen))  # a scale of 0 keeps the map at 1
    with torch.no_grad():
        read = F.relu(model.bn0(model.stem(unseen)))  # type: ignore[operator]
        wanted = F.relu(layer(read))
        foretold = layer.map.norm.eval()
        values = layer.map.conv(read)
    wanted = wanted.mean(1, keepdim=True) if kind == "shared" else wanted
    pairs = zip(values.transpose(0, 1).flatten(1), wanted.transpose(0, 1).flatten(1), strict=True)
    found = torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in pairs])
    assert float(found.mean()) > least
    assert layer.map.conv.weight.flatten(1).norm(dim=1).tolist() == pytest.approx([2**0.5] * len(found), rel=1e-4)
    moments = torch.stack([values.mean((0, 2, 3)), values.var((0, 2, 3))])
    kept = torch.stack([foretold.running_mean, foretold.running_var])  # type: ignore[list-item]
    torch.testing.assert_close(kept, moments, rtol=0.25, atol=0.1)
