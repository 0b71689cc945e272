"""Numbers as people read them: three digits, a unit, and never two different values printed alike.

A number and its unit are joined by a no-break space, so that no line ends between them.
"""

from __future__ import annotations

import math
from datetime import datetime

GAP = "\u00a0"
_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def significant(value: float, digits: int = 3) -> str:
    """Return a number with so many significant digits, and thousands set apart.

    >>> significant(1.0999), significant(0.012345), significant(12345.6), significant(-2.0)
    ('1.10', '0.0123', '12,346', '−2.00')
    """
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    if abs(value) < 1e-4:
        return scientific(value)
    # Rounding first, so that 9.9996 counts as 10.0 and not as the one-digit number it starts as.
    exponent = math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}"))))
    return f"{value:,.{max(digits - 1 - exponent, 0)}f}".replace("-", "−")


def scientific(value: float) -> str:
    """Return a number as a power of ten.

    >>> scientific(3e-7).replace(GAP, " ")
    '3.0 × 10⁻⁷'
    """
    if not math.isfinite(value) or value == 0:
        return significant(value)
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}{GAP}×{GAP}10{str(int(exponent)).translate(_RAISED)}".replace("-", "−")


def scaled(value: float, digits: int = 3) -> str:
    """Return a count: whole below ten thousand, with a prefix above.

    >>> scaled(9216), scaled(852_874).replace(GAP, " ")
    ('9,216', '853 k')
    """
    if not math.isfinite(value):
        return significant(value)
    if abs(value) < 10_000:
        return f"{value:,.0f}" if float(value).is_integer() else significant(value, digits)
    scale, prefix = next((s, p) for s, p in _PREFIXES if float(f"{abs(value):.{digits - 1}e}") >= s)
    return f"{significant(value / scale, digits)}{GAP}{prefix}"


def size(value: float, digits: int = 3) -> str:
    """Return a number of bytes, in decimal kilobytes and megabytes.

    >>> size(120).replace(GAP, " "), size(3_412_000).replace(GAP, " ")
    ('120 bytes', '3.41 MB')
    """
    if not math.isfinite(value) or abs(value) < 1000:
        return f"{significant(value, digits) if value % 1 else f'{value:.0f}'}{GAP}bytes"
    scale, prefix = next((s, p) for s, p in _PREFIXES if float(f"{abs(value):.{digits - 1}e}") >= s)
    return f"{significant(value / scale, digits)}{GAP}{prefix}B"


def quantity(value: float, unit: str, digits: int = 3) -> str:
    """Return a value in the unit a cost declares.

    >>> quantity(1.2, "ms").replace(GAP, " "), quantity(41_200_000, "MAC").replace(GAP, " ")
    ('1.20 ms', '41.2 M MACs')
    """
    if unit in ("byte", "bytes", "B"):
        return size(value, digits)
    if unit in ("MAC", "MACs"):
        return f"{scaled(value, digits)}{GAP}MACs"
    if abs(value) >= 10_000 or (float(value).is_integer() and unit not in ("ms", "s", "%", "mJ", "J")):
        return f"{scaled(value, digits)}{GAP}{unit}".rstrip(GAP)
    return f"{significant(value, digits)}{GAP}{unit}".rstrip(GAP)


def apart(first: float, second: float, unit: str) -> tuple[str, str]:
    """Return two values with as many digits as it takes to tell them apart.

    >>> [text.replace(GAP, " ") for text in apart(1.2, 1.2004, "ms")]
    ['1.2000 ms', '1.2004 ms']
    """
    for digits in range(3, 10):
        texts = quantity(first, unit, digits), quantity(second, unit, digits)
        if texts[0] != texts[1]:
            return texts
    return quantity(first, unit), quantity(second, unit)


def span(low: float, high: float, digits: int = 3) -> str:
    """Return an interval.

    >>> span(1.05, 1.2)
    '1.05–1.20'
    """
    return f"{significant(low, digits)}–{significant(high, digits)}"


def times(factor: float) -> str:
    """Return a factor.

    >>> times(2.345), times(12.4), times(1.026)
    ('2.3×', '12×', '1.03×')
    """
    return f"{significant(factor, 2 if factor >= 1.095 else 3)}×"


def percent(value: float) -> str:
    """Return an accuracy with two decimals.

    >>> percent(98.9).replace(GAP, " ")
    '98.90 %'
    """
    return f"{value:.2f}{GAP}%" if math.isfinite(value) else significant(value)


def duration(seconds: float) -> str:
    """Return a time span in the largest two units.

    >>> duration(93.1).replace(GAP, " "), duration(2.14).replace(GAP, " "), duration(7260).replace(GAP, " ")
    ('1 min 33 s', '2.1 s', '2 h 1 min')
    """
    if not seconds >= 0.95:
        return f"{significant(seconds * 1000, 2)}{GAP}ms"
    if seconds < 59.95:
        return f"{seconds:.1f}{GAP}s" if seconds < 9.95 else f"{seconds:.0f}{GAP}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{GAP}min {rest}{GAP}s"
    return f"{minutes // 60}{GAP}h {minutes % 60}{GAP}min"


def moment(text: str) -> str:
    """Return an ISO time without its fractions; what is not one is returned as it is.

    >>> moment("2026-11-07T14:03:22.123+00:00")
    '2026-11-07 14:03 UTC'
    """
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{when:%Y-%m-%d %H:%M} {when.tzname() or ''}".strip()
