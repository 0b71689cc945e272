"""Example inputs as trees: their batch, their names, and the shapes left open for the exporter."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as tree

Example = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of one call."""


def batch_of(example: Example) -> int | None:
    """Return dimension 0 of the first tensor that has one; None without such a tensor."""
    for leaf in tree.tree_leaves(example):
        if isinstance(leaf, Tensor) and leaf.dim() > 0:
            return leaf.shape[0]
    return None


def with_batch(example: Example, size: int) -> Example:
    """Return the example with ``size`` samples, by repeating or dropping rows.

    A tensor counts as batched when its dimension 0 equals that of the first tensor.

    >>> (x,), _ = with_batch(((torch.tensor([[1], [2]]),), {}), 3)
    >>> x.flatten().tolist()
    [1, 2, 1]
    """
    batch = batch_of(example)

    def resize(leaf: Any) -> Any:
        if batch and isinstance(leaf, Tensor) and leaf.dim() > 0 and leaf.shape[0] == batch:
            return leaf[torch.arange(size, device=leaf.device) % batch]
        return leaf

    args, kwargs = tree.tree_map(resize, example)
    return args, kwargs


def bound(model: nn.Module, example: Example) -> dict[str, Any]:
    """Return the arguments by the names of ``model.forward``, in its order."""
    args, kwargs = example
    return dict(inspect.signature(model.forward).bind(*args, **kwargs).arguments)


def open_batch(model: nn.Module, example: Example, dimension: Any) -> dict[str, Any]:
    """Return the exporter's description of which dimensions are open: 0 of every batched tensor."""
    batch = batch_of(example)

    def leave_open(leaf: Any) -> dict[int, Any] | None:
        if not isinstance(leaf, Tensor):
            return None
        return {0: dimension} if leaf.dim() > 0 and leaf.shape[0] == batch else {}

    result: dict[str, Any] = tree.tree_map(leave_open, bound(model, example))
    return result


def names_of(value: Any, single: str) -> list[str]:
    """Name the tensors of an argument or result: by key, by position, or ``single`` for a lone tensor.

    >>> x = torch.zeros(1)
    >>> names_of(x, "output"), names_of((x, x), "output"), names_of({"logits": x, "aux": [x, None]}, "output")
    (['output'], ['output_0', 'output_1'], ['logits', 'aux_0'])
    """
    names = []
    for path, leaf in tree.tree_flatten_with_path(value)[0]:
        if isinstance(leaf, Tensor):
            words = [str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", "")))) for key in path]
            names.append("_".join(words if words and not words[0].isdigit() else [single, *words]))
    return names
