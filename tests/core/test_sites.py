import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from penjing.core.sites import Site


def site(name="conv", size=20, step=1, least=1):
    return Site(name, "channels", size, (), np.arange(size), step=step, least=least)


@given(st.integers(1, 200), st.sampled_from([1, 2, 4, 8, 16, 32]), st.integers(1, 10), st.floats(0, 250))
def test_counts_are_multiples_of_the_step_or_everything(size, step, least, wanted):
    s = site(size=size, step=step, least=least)
    allowed = [n for n in range(1, size) if n % step == 0 and n >= least] + [size]
    below = [n for n in allowed if n <= wanted]
    assert s.allowed(wanted) == (max(below) if below else min(allowed))
    for count in allowed:
        lower = [n for n in allowed if n < count]
        assert s.below(count) == (max(lower) if lower else count)
