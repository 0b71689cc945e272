from torch import nn

from penjing.core.protocols import Timed
from penjing.core.registry import build
from penjing.graph.quantized import Precision, QuantConv2d, attach
from penjing.terms.rounding import Rounding


def test_quantized_layers_hear_how_far_the_training_is(monkeypatch):
    heard = []
    monkeypatch.setattr(QuantConv2d, "after_step", lambda layer, progress: heard.append(progress))
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3))
    attach(net, {"1": Precision(build("quantizer", "lsq"), 4)})
    term = Rounding()
    assert isinstance(term, Timed)
    term.time(4)
    (count,) = term.attach(net)
    for _ in range(5):
        term.after_step()
    assert heard == [0.25, 0.5, 0.75, 1, 1]
    count.data.fill_(2)  # as a checkpoint puts it back
    term.after_step()
    assert heard[-1] == 0.75
    term.detach()
    term.after_step()
    assert len(heard) == 6
