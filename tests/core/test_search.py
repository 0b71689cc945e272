from penjing.core.search import Bound


def test_bounds_allow_rounding_only():
    bound = Bound("macs", 100.0, "100")
    assert bound.met(100.0) and not bound.met(100.001)
