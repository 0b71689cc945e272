"""Numbers with units: read, refused, and shown so that they can be read again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penjing.core.errors import RecipeError
from penjing.targets.units import QUANTITIES, parse, show


@pytest.mark.parametrize(
    ("quantity", "text", "value"),
    [
        ("frequency", "480MHz", 480e6),
        ("frequency", "1.5e3 kHz", 1.5e6),
        ("size", "128 KiB", 131072),
        ("size", "1 MB", 1e6),
        ("bandwidth", "4 GB/s", 4e9),
        ("bandwidth", "64 bit * 60 MHz", 480e6),
        ("bandwidth", "128 bits x 1 GHz", 16e9),
        ("energy", "300 fJ", 0.3),
        ("energy per byte", "1.2 nJ/B", 1200),
        ("power", "2 W", 2000),
        ("time", "5 us", 0.005),
        ("rate", "30 fps", 30),
        ("number", 16, 16),
        ("share", "60%", 0.6),
        ("share", 0.6, 0.6),
    ],
)
def test_units_are_read(quantity: str, text: object, value: float) -> None:
    assert parse("f", "k", quantity, text) == pytest.approx(value)


@pytest.mark.parametrize(
    ("quantity", "text", "says"),
    [
        ("frequency", 200, "has no unit; a frequency is in Hz, kHz, MHz, GHz, THz; write for example 200 MHz"),
        ("frequency", "200 MB", "is a size, where a frequency in Hz"),
        ("frequency", "200 mhz", "has the unit 'mhz'"),
        ("size", "128 Kb", "has the unit 'Kb', where a size in B"),
        ("bandwidth", "4 GB", "is a size, where a bandwidth in"),
        ("bandwidth", "64 bit * 60", "has no unit; a frequency"),
        ("number", "16 MHz", "is a frequency, where a number without a unit is wanted"),
        ("energy", "0.3 pJ/B", "is an energy per byte"),
        ("energy", "0.3", "has no unit; an energy is in fJ"),
        ("power", "", "is no number; write for example 50 mW"),
        ("power", True, "is no number"),
        ("power", None, "is no number"),
        ("power", [1], "is no number"),
        ("power", "9" * 400, "is no number"),
        ("power", "1e400 W", "is too large a number"),
        ("share", "nan", "is no number"),
        ("share", float("nan"), "is no number"),
    ],
)
def test_missing_and_mistaken_units_are_told(quantity: str, text: object, says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse("chip.yaml", "key", quantity, text)
    assert str(caught.value).startswith("chip.yaml: key = ") and says in str(caught.value)


@given(st.sampled_from(sorted(QUANTITIES)), st.floats(1e-9, 1e15))
def test_what_is_shown_is_read_again(quantity: str, value: float) -> None:
    assert parse("f", "k", quantity, show(quantity, value)) == pytest.approx(value, rel=1e-5)
