"""What is told of layers in few bits, and which of them are smaller and not faster."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from penjing.graph.quantized import Precision, attach, quantized
from penjing.graph.trace import trace
from penjing.quantizers.lsq import lsq
from penjing.quantizers.twn import twn
from penjing.steps.few_bits import SIZE_ONLY, few_bits, find, find_modelled
from penjing.targets import find as target
from targets.drafts import conv
from tiny import tiny

FLOATS = conv("floats")
WEIGHTS = replace(conv("weights"), bits=2, stored_bits=2 * conv().weights)
BOTH = replace(WEIGHTS, name="both", input_bits=4)


def test_a_file_that_unpacks_weights_gains_no_latency() -> None:
    weights, both = find([FLOATS, WEIGHTS, BOTH], "onnxruntime")
    assert (weights.where, weights.cause, weights.brings) == ("weights", SIZE_ONLY, None)
    assert "onnxruntime" in weights.detail and "step int8" in weights.remedy
    assert "operators of their own" in both.detail and "operators of their own" not in weights.detail


def test_on_a_model_weights_alone_bring_time_where_the_layer_waits_for_them() -> None:
    layers = [FLOATS, WEIGHTS, BOTH, WEIGHTS]
    (found,) = find_modelled(layers, ["compute", "compute", "compute", "dram"], "chip")
    assert (found.where, found.cause) == ("weights", SIZE_ONLY)


def test_each_layer_is_told_with_its_method_its_bits_and_its_bytes() -> None:
    model = tiny().eval()
    attach(model, {"conv1": Precision(twn(), 2), "conv2": Precision(lsq(activations=8), 4)})
    x = torch.randn(2, 3, 8, 8)
    for layer in quantized(model).values():
        layer.start(torch.randn(2, layer.weight.shape[1], 8, 8).relu())
    layers = trace(model, (x,), proof=False).layers
    here, there = (few_bits(model, layers, target(name)) for name in ("onnxruntime", "mcu_m7"))
    assert [one["layer"] for one in here] == ["conv1", "conv2"]
    assert here[0] == {
        "layer": "conv1", "method": "twn", "bits": 2, "input_bits": 32, "float_bytes": 4 * 4608.0,
        "bytes": layers[1].stored_bits / 8, "size_only": True,
    }  # fmt: skip
    assert (here[1]["method"], here[1]["bits"], here[1]["input_bits"]) == ("lsq", 4, 8)
    assert [one["size_only"] for one in (*here, *there)] == [True, True, True, False]
    assert few_bits(nn.Linear(2, 2), layers, target("onnxruntime")) == []
