"""From a module to an exported program: a private copy without parametrizations, and the export to ATen operators."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.fx.proxy import TracerBase
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from penjing.core.errors import TraceError
from penjing.core.modes import modes_kept

_FOREIGN = (str(Path(torch.__file__).parent), str(Path(__file__).parent), "<")
"""Where frames are not the user's: torch, this package, generated code."""

_HOOKS = (WeightNorm, SpectralNorm, prune.BasePruningMethod)
"""Hooks that compute a weight before each forward, the form older than parametrizations."""

_REGIONS = ("wrap_with_set_grad_enabled", "wrap_with_autocast")
"""Operators that stand for a ``with`` block in the user's forward; its body is a graph of its own."""


def plain(model: nn.Module) -> nn.Module:
    """Return a private copy in eval mode whose parametrizations are folded into ordinary parameters.

    Raises: TraceError when the module holds something that cannot be copied.
    """
    try:
        model = copy.deepcopy(model)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise TraceError(
            f"{type(model).__name__} cannot be copied: {reason.rstrip('.')}. Keep such state out of the module, or "
            "give it a __deepcopy__."
        ) from None
    for module in model.modules():
        if parametrize.is_parametrized(module):
            # The copy shares its class with the user's module, and folding deletes properties of the class.
            parametrized = type(module)
            module.__class__ = type(parametrized.__name__, parametrized.__bases__, dict(parametrized.__dict__))
            for name in list(module.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)
        for key, hook in list(module._forward_pre_hooks.items()):
            if isinstance(hook, _HOOKS):
                hook.remove(module)
                del module._forward_pre_hooks[key]
    return model.eval()


def export(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.export.ExportedProgram:
    """Export in eval mode to ATen operators.

    Raises: TraceError with the first line of what went wrong and the user's line it points at.
    """
    try:
        with modes_kept(model), _quiet(), _innermost_lines(), torch.no_grad():
            program = torch.export.export(model.eval(), args, kwargs, strict=False)
    except Exception as error:
        raise _trouble(model, error) from None
    _inline(program.graph_module)
    return program


def line_of(stack: str | None) -> str:
    """Return ``file.py:12`` of the innermost frame of a stack trace that lies in the user's own code."""
    for text in reversed((stack or "").splitlines()):
        text = text.strip()
        if text.startswith('File "') and ", line " in text:
            filename = text.split('"')[1]
            if is_users(filename):
                return f"{Path(filename).name}:{text.split(', line ')[1].split(',')[0]}"
    return ""


def lines_of(error: BaseException) -> list[str]:
    """Return the places in the user's own code that an exception passed through, outermost first."""
    frames = traceback.extract_tb(error.__traceback__)
    return [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames if is_users(frame.filename)]


def is_users(filename: str) -> bool:
    """Tell whether a source file belongs to the user, and not to torch or this package."""
    return not filename.startswith(_FOREIGN)


def _trouble(model: nn.Module, error: Exception) -> TraceError:
    lines = lines_of(error)
    where = f" at {lines[-1]}" if lines else ""
    text = " ".join(str(error).split("\n\n")[0].split())[:300].rstrip(".")
    if "data-dependent" in text or "DataDependent" in type(error).__name__:
        return TraceError(
            f"{type(model).__name__} cannot be traced{where}: forward decides by the values of a tensor, or reads one "
            "as a Python number. Use torch.where instead of an if, and keep the number in a tensor."
        )
    return TraceError(
        f"{type(model).__name__} cannot be traced{where}: {type(error).__name__}: {text}. Forward must run in eval "
        "mode on the example input."
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter from warning and logging; what matters of it is raised."""
    loggers = [logging.getLogger(f"torch.{name}") for name in ("export", "_export", "fx", "_dynamo", "_guards")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        # It also prints the unfinished graph when it meets a value it cannot know.
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _innermost_lines() -> Iterator[None]:
    """Let nodes remember the user's innermost line.

    By itself the exporter keeps only frames called ``forward``, so that whatever a helper does seems to happen on the
    line that called it. Where the exporter has no such hook any more, its own choice stands.
    """
    name = "_filter_traceback_frames"
    ours = getattr(TracerBase, name, None)
    if ours is None:
        yield
        return

    def innermost(_: TracerBase, stack: traceback.StackSummary) -> traceback.StackSummary:
        first = next((i for i, frame in enumerate(stack) if frame.name == "forward"), len(stack))
        users = [frame for frame in stack[first:] if is_users(frame.filename)]
        return traceback.StackSummary.from_list(users[-1:])

    setattr(TracerBase, name, innermost)
    try:
        yield
    finally:
        setattr(TracerBase, name, ours)


def _inline(module: torch.fx.GraphModule) -> None:
    """Put the body of each ``with`` block where the block stands, so that the program is one list of operators."""
    for node in list(module.graph.nodes):
        if node.op != "call_function" or str(node.target) not in _REGIONS:
            continue
        at = next(i for i, a in enumerate(node.args) if isinstance(a, torch.fx.Node) and a.op == "get_attr")
        body = module.get_submodule(node.args[at].target)
        assert isinstance(body, torch.fx.GraphModule)
        _inline(body)
        inputs = [inner for inner in body.graph.nodes if inner.op == "placeholder"]
        with module.graph.inserting_before(node):
            made = module.graph.graph_copy(body.graph, dict(zip(inputs, node.args[at + 1 :], strict=True)))
        for user in list(node.users):
            user.replace_all_uses_with(made[user.args[1]])  # type: ignore[index]
            module.graph.erase_node(user)
        module.graph.erase_node(node)
