"""What an operation and a byte cost where a target does not say: 45 nm."""

from __future__ import annotations

import math

MAC_PJ = {"int8": 0.3, "int16": 0.9, "fp16": 1.5, "fp32": 4.6}
"""One multiplication and one addition; 8 and 16 bit integers are added to 32 bit sums.

Units: pJ.

Paper: Horowitz, Computing's Energy Problem, ISSCC 2014, figure 1.1.9.

Differs: the paper has no 16 bit integers; a multiplier takes the square of its width.
"""

DRAM_PJ_A_BYTE = 160.0
"""The lower end of the paper's 1.3 to 2.6 nJ for 64 bits."""

SOURCE = "Horowitz, ISSCC 2014, 45 nm"


def sram_pj_a_byte(size: float) -> float:
    """Return what a byte of a memory of this many bytes costs: 10 pJ for 64 bits of 8 KiB, as the root of the size.

    Units: pJ/B.

    Paper: Horowitz, Computing's Energy Problem, ISSCC 2014, figure 1.1.9: 10 pJ at 8 KiB, 20 at 32 KiB, 100 at 1 MiB.

    Differs: the root gives 113 pJ at 1 MiB.

    >>> sram_pj_a_byte(8192), sram_pj_a_byte(32768)
    (1.25, 2.5)
    """
    return 1.25 * math.sqrt(size / 8192)
