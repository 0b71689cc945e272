"""Width multipliers: how many channels a layer has in a narrower or wider form of its network."""

from __future__ import annotations

import math

from penjing.core.errors import RecipeError


def scaled(channels: int, width: float) -> int:
    """Return this share of the channels, rounded.

    Raises: RecipeError when none is left.

    >>> scaled(64, 0.5)
    32
    """
    if not (math.isfinite(width) and round(channels * width) >= 1):
        raise RecipeError(f"width multiplies the channels of every convolution; at {width} there are none.")
    return round(channels * width)


def in_eights(channels: int, width: float) -> int:
    """Return this share of the channels as a multiple of 8: the nearest, the next where that is below 90 % of it.

    The rule of the MobileNets' released code, without which their weights do not fit.

    Raises: RecipeError for a width that is not a number above zero.

    >>> in_eights(24, 0.75), in_eights(32, 0.35), in_eights(16, 0.1)
    (24, 16, 8)
    """
    if not (math.isfinite(width) and width > 0):
        raise RecipeError(f"width multiplies the channels of every convolution, so it is above 0; got {width}.")
    nearest = max(8, int(channels * width + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels * width else nearest
