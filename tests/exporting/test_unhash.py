"""Weights of tables and of buckets in an ONNX file: what a runtime unpacks is what the layer computes with."""

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from penjing.exporting.unpack import pack
from penjing.graph.quantized import Precision, attach
from penjing.quantizers.base import Quantizer
from penjing.quantizers.codebook import codebook
from penjing.quantizers.hashed import hashed
from penjing.quantizers.product import product


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("method", "bits"),
    [(hashed(seed=2**31 - 1), 3), (hashed(ratio=1 / 64), 1), (hashed(seed=4), 8), (codebook(), 3), (product(), 5)],
    ids=str,
)
def test_a_runtime_unpacks_what_the_layer_computes_with(method: Quantizer, bits: int, turned: bool) -> None:
    layer = nn.Linear(144, 32) if turned else nn.Conv2d(16, 32, 3)
    attach(nn.Sequential(layer), {"0": Precision(method, bits)})
    layer.start(None)
    with torch.no_grad():
        weight = layer.weights(layer.weight)
    folded = (weight * torch.linspace(-1, 2, 32).view(-1, *[1] * (weight.ndim - 1))).numpy()
    folded = np.ascontiguousarray(folded.T if turned else folded)
    graph = helper.make_graph(
        [helper.make_node("Add", ["w", "x"], ["y"])],
        "weight",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, folded.shape)],
        [numpy_helper.from_array(folded, "w")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    assert pack(proto, nn.Sequential(layer)) == []
    assert "w" not in {tensor.name for tensor in proto.graph.initializer}
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": np.zeros((), np.float32)})
    np.testing.assert_allclose(found, folded, rtol=1e-6, atol=1e-7)
