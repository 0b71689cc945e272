"""Small hand-written networks, each with one structure on which channel pruning can go wrong.

One file a theme; importing the package registers them all, in this order.
"""

from . import (  # noqa: F401, I001
    chains,
    residual,
    concat,
    groups,
    slices,
    flatten,
    scales,
    shuffles,
    sharing,
    weights,
    ends,
    norms,
    activations,
    blocks,
    attention,
    layouts,
    sampling,
    arithmetic,
    order,
    constants,
    outlets,
    recurrent,
)
from .case import HOSTILE, randomise, shuffle

__all__ = ["HOSTILE", "randomise", "shuffle"]
