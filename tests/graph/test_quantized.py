"""Layers whose table is trained: the latent weight rests, and what the layer reads comes to the weights."""

import pytest
import torch
from torch import nn

from penjing.data import load
from penjing.graph.quantized import Precision, attach, floated, inputs_of, quantized
from penjing.quantizers.codebook import codebook
from penjing.quantizers.hashed import hashed
from penjing.quantizers.product import product
from penjing.training.loop import Options, fit
from tiny import pictures, skilled, tiny


@pytest.mark.parametrize(
    "precision",
    [Precision(codebook(), 2), Precision(product(), 4), Precision(hashed(ratio=1 / 8), 4)],
    ids=lambda one: one.quantizer.name,
)
def test_tables_train_and_latent_weights_rest(tmp_path, precision):
    model, names = skilled(), ["conv1", "conv2"]
    attach(model, dict.fromkeys(names, precision))
    x = torch.randn(8, 3, 8, 8)
    seen = inputs_of(floated(model), names, [x], 8)
    for name in names:
        quantized(model)[name].start(seen[name])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    data = load(pictures(tmp_path), seed=0)
    fit(model, data.train, data.val, Options(epochs=1, lr=0.02, batch=16, weight_decay=0.1), seed=0)
    after = model.state_dict()
    changed = {key for key, value in before.items() if "conv" in key and not torch.equal(value, after[key])}
    assert changed == {f"{name}.weights.{'buckets' if 'hashed' in str(precision) else 'table'}" for name in names}
    again = tiny()
    attach(again, {name: Precision.from_json(precision.to_json()) for name in names})
    again.load_state_dict(after)
    assert torch.equal(again.eval()(x), model.eval()(x))


def test_what_the_layer_reads_comes_to_its_weights():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 16, 3))
    weight = model[0].weight.detach().clone()
    x = torch.randn(16, 4, 6, 6) * torch.tensor([10.0, 1, 1, 1]).view(1, 4, 1, 1)
    found = []
    for samples in (None, x):
        model[0].weight.data.copy_(weight)
        attach(model, {"0": Precision(product(), 2)})
        model[0].start(samples)
        found.append((model[0].weights(weight) - weight)[:, 0].square().sum())
    assert found[1] < 0.9 * found[0]  # the filters of the channel that is strongest are kept best
