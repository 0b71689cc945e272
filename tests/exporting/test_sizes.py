"""Bytes of a bundle, and of what it runs from."""

import torch

from penjing.exporting import bundle, sizes
from penjing.graph.quantized import Precision, attach, start
from penjing.quantizers.bnn import bnn
from tiny import tiny


def test_layers_of_signs_are_small_on_disk_and_in_memory(tmp_path):
    model, names = tiny().eval(), ("conv1", "conv2")
    attach(model, dict.fromkeys(names, Precision(bnn(), 1)))
    start(model, names, {name: torch.randn(2, n, 8, 8) for name, n in zip(names, (16, 32), strict=True)})
    place = bundle.write(tmp_path / "run", model, finished=True)
    found = sizes.beside(place, tiny())
    (before, after), whole = (found[name] for name in ("original", "penjing")), tiny()
    assert after["bundle"] == sum(file.stat().st_size for file in place.iterdir())
    assert before["packed"] == sum(t.nbytes for t in whole.state_dict().values())
    saved = 2 * 4608 * 4
    assert 0.8 * saved < before["packed"] - after["packed"] < saved  # 16 channels take a word of 64
    assert before["bundle"] - after["bundle"] > 0.9 * saved - 4000


def test_a_network_of_floats_has_nothing_to_tell(tmp_path):
    assert sizes.beside(bundle.write(tmp_path / "run", tiny(), finished=True), tiny()) == {}
