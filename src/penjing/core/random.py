"""One seed, many named and independent streams.

Library code never seeds a global generator: whoever needs chance asks for a stream by name, so that adding a
consumer does not shift the numbers another one sees.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive(seed: int, name: str) -> int:
    """Return a 63-bit seed that depends on both arguments."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def stream(seed: int, name: str) -> np.random.Generator:
    """Return the numpy generator of this name.

    >>> bool(stream(0, "split").integers(100) == stream(0, "split").integers(100))
    True
    """
    return np.random.default_rng(derive(seed, name))


def torch_stream(seed: int, name: str) -> torch.Generator:
    """Return the torch CPU generator of this name."""
    import torch

    return torch.Generator().manual_seed(derive(seed, name))
