"""Gates on residual blocks: one factor on all that a block adds to what it reads, while the user's own forward runs.

A gate of one leaves a block as it is, a gate of zero leaves its shortcut alone. It stands on the module that ends the
branch, a normalisation, convolution or linear layer, into which what is learned can be folded to the last bit of
meaning: all of these are affine, so that scaling weight and bias scales what they return.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx, nn
from torch.utils.hooks import RemovableHandle

from penjing.graph.graph import Block, Graph

Ends: TypeAlias = Mapping[str, tuple[str, ...]]
"""By block: the modules that end its branches."""

AFFINE = (
    nn.modules.batchnorm._BatchNorm,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.modules.conv._ConvNd,
    nn.Linear,
)
"""Modules whose weight and bias scale all that they return."""


def ends_of(model: nn.Module, graph: Graph) -> dict[str, tuple[str, ...]]:
    """Return the modules that end the branches of each block that can bear a gate.

    A block whose branch ends in something else (a scale of the user's own, a squeeze-and-excitation) is left out.
    """
    nodes = {node.name: node for node in graph.program.nodes}
    found = {}
    for name, block in graph.blocks.items():
        ends = [_end(model, nodes, block, where, at) for where, at in block.branches]
        whole = tuple(dict.fromkeys(end for end in ends if end is not None))
        if ends and None not in ends:
            found[name] = whole
    return found


def attach(model: nn.Module, ends: Ends, factors: Callable[[], Mapping[str, Tensor]]) -> list[RemovableHandle]:
    """Multiply the branches of each block by its gate, [1], in every forward until the handles are removed."""

    def scaled(block: str, _: nn.Module, args: Any, output: Tensor) -> Tensor:
        return output * factors()[block].to(output.dtype)

    return [
        model.get_submodule(end).register_forward_hook(partial(scaled, block))
        for block, modules in ends.items()
        for end in modules
    ]


@torch.no_grad()
def fold(model: nn.Module, ends: Ends, gates: Mapping[str, Tensor]) -> None:
    """Multiply, in place, what ends each branch by the block's gate, [1]: the network computes as with gates set."""
    for block, modules in ends.items():
        for end in modules if block in gates else ():
            for parameter in model.get_submodule(end).parameters(recurse=False):
                parameter.mul_(gates[block].to(parameter))


def _end(model: nn.Module, nodes: Mapping[str, fx.Node], block: Block, where: str, at: int) -> str | None:
    """Return the module that computes a branch, if it is one that a factor can be folded into."""
    branch = nodes[where].args[at]
    stack = branch.meta.get("nn_module_stack") if isinstance(branch, fx.Node) else None
    path = str(next(reversed(stack.values()))[0]) if stack else ""
    if not path.startswith(f"{block.module}."):
        return None
    module = model.get_submodule(path)
    return path if isinstance(module, AFFINE) and getattr(module, "weight", None) is not None else None
