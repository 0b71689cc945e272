import numpy as np

from penjing.core.layers import Layer, Value


def layer(**changes):
    facts = {
        "name": "c", "kind": "conv", "weight": "c.weight", "bias": None, "in_units": np.arange(8),
        "out_units": np.arange(8, 20), "in_channels": 8, "out_channels": 12, "groups": 1, "kernel": (3, 3),
        "stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "transposed": False, "in_size": (5, 5),
        "out_size": (5, 5),
    }  # fmt: skip
    return Layer(**(facts | changes))


def test_macs_by_hand_and_after_a_cut():
    gone = np.zeros(20, dtype=bool)
    gone[[0, 1, 8, 9, 10]] = True
    assert layer().macs == 25 * 9 * 8 * 12
    assert layer().shrunk(gone).macs == 25 * 9 * 6 * 9
    depthwise = layer(in_units=np.arange(8), out_units=np.arange(8), out_channels=8, groups=8, follows=True)
    assert depthwise.macs == 25 * 9 * 8
    assert depthwise.shrunk(gone).macs == 25 * 9 * 6 and depthwise.shrunk(gone).groups == 6


def test_values_shrink_with_their_units():
    value = Value(10, (np.array([0, 1, 2, -1]),), 0, 3)
    gone = np.array([True, False, False])
    assert value.elements(gone) == 30
