from hypothesis import given
from hypothesis import strategies as st

from penjing.zoo.widths import in_eights


@given(st.integers(8, 2048), st.floats(0.05, 2))
def test_channels_are_a_multiple_of_eight_and_hardly_fewer_than_asked(channels, width):
    found = in_eights(channels, width)
    assert found % 8 == 0
    assert 0.9 * channels * width <= found < max(8, channels * width) + 8
    if channels % 8 == 0:
        assert in_eights(channels, 1.0) == channels
