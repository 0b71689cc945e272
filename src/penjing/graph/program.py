"""From a module to a program: a private copy without parametrizations, and its forward as a list of ATen operators."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import traceback
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses import FakeTensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.proxy import TracerBase
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from penjing.core.errors import TraceError

_FOREIGN = (str(Path(torch.__file__).parent), str(Path(__file__).parent), "<")
"""Where frames are not the user's: torch, this package, generated code."""

_HOOKS = (WeightNorm, SpectralNorm, prune.BasePruningMethod)
"""Hooks that compute a weight before each forward, the form older than parametrizations."""


@dataclass(frozen=True, eq=False)
class Program:
    """A network's forward as one list of ATen operators.

    ``names`` has an entry a placeholder, in order: the first name of the parameter or buffer that it stands for, or
    None for a tensor of the input. Constants that the user's code makes are attributes of ``module``.
    """

    module: torch.fx.GraphModule
    names: tuple[str | None, ...]

    @property
    def nodes(self) -> list[torch.fx.Node]:
        """The nodes in the order of execution."""
        return list(self.module.graph.nodes)

    def arguments(self, state: Mapping[str, Tensor], example: tuple[Any, Any]) -> list[Tensor]:
        """Return what ``module`` takes: parameters and buffers by name, and the tensors of an input."""
        users = iter(_tensors(example))
        return [next(users) if name is None else state[name] for name in self.names]


def plain(model: nn.Module) -> nn.Module:
    """Return a private copy in eval mode whose parametrizations are folded into ordinary parameters.

    Of a network that is wrapped to run on several devices, what is in the wrapper.

    Raises: TraceError when the module holds something that cannot be copied.
    """
    while isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        model = model.module
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


def shell(model: nn.Module) -> nn.Module:
    """Return a copy that shares the parameters of the model, for those who replace parameters and edit none."""
    return copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})


def capture(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Program:
    """Run forward in eval mode on tensors without numbers and record the ATen operators it calls.

    They are recorded before autograd takes them apart, as the layers the user wrote. Forward runs on a copy, so that
    what it stores in the module is not left there.

    Raises: TraceError with the first line of what went wrong and the user's line it points at.
    """
    twin = shell(model).eval()
    state = {**dict(twin.named_parameters()), **dict(twin.named_buffers())}
    leaves, shape = tree_flatten((args, kwargs))
    inputs = _tensors((args, kwargs))

    def forward(tensors: list[Tensor]) -> list[Tensor]:
        given = iter(tensors[len(state) :])
        own_args, own_kwargs = tree_unflatten([next(given) if isinstance(x, Tensor) else x for x in leaves], shape)
        named = dict(zip(state, tensors, strict=False))
        return _outputs(torch.func.functional_call(twin, named, own_args, own_kwargs))

    forward._orig_mod = twin  # type: ignore[attr-defined]  # where make_fx looks for names of modules
    record = make_fx(
        forward,
        tracing_mode="fake",
        pre_dispatch=True,
        record_module_stack=True,
        _allow_non_fake_inputs=True,  # constants that forward makes
        _disable_torch_fn_metadata_mode=True,
    )
    try:
        with _quiet(), innermost_lines(), torch.no_grad():
            module = record([*state.values(), *inputs])
    except Exception as error:
        raise _trouble(model, error) from None
    for node in list(module.graph.nodes):
        _refuse_unknown(model, module, node)
        if node.target is torch._C._set_grad_enabled:  # would outlive a run of the program
            module.graph.erase_node(node)
    return Program(module, (*state, *[None] * len(inputs)))


def _refuse_unknown(model: nn.Module, module: torch.fx.GraphModule, node: torch.fx.Node) -> None:
    """Refuse what a run of the program could not give again.

    Raises: TraceError naming the user's line.
    """
    lines = [line_of(n.meta.get("stack_trace")) for n in (node, *node.users)]
    cannot = _cannot(model, next(filter(None, lines), ""))
    if node.op == "get_attr" and isinstance(getattr(module, str(node.target), None), FakeTensor):
        raise TraceError(f"{cannot}: a tensor gets there by a way that leaves no trace, such as .data; use .detach().")
    for value in _tensors(node.meta.get("val")):
        if any(not isinstance(size, int) for size in value.shape):
            raise TraceError(
                f"{cannot}: {node.name} makes a tensor whose size depends on the values of another. Keep its size "
                "fixed: use torch.where or a product with a mask instead of picking by one."
            )


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def _outputs(value: Any) -> list[Tensor]:
    """Return the tensors of what forward returned.

    Raises: TypeError for an object whose tensors nobody can find.
    """
    for leaf in tree_leaves(value):
        if not isinstance(leaf, Tensor | int | float | str | None):
            raise TypeError(
                f"forward returns an object of type {type(leaf).__name__}; return tensors, alone or in tuples, lists, "
                "dicts or named tuples"
            )
    return _tensors(value)


def runs_of_modules(program: Program) -> list[tuple[str, set[fx.Node]]]:
    """Return every run of every module within the network: its name, and the nodes that it consists of."""
    names: dict[str, str] = {}
    runs: dict[str, set[fx.Node]] = {}
    for node in program.nodes:
        for key, (name, _) in (node.meta.get("nn_module_stack") or {}).items():
            if name and node.op == "call_function":
                names[key] = name
                runs.setdefault(key, set()).add(node)
    return [(names[key], nodes) for key, nodes in runs.items()]


def returned_by(nodes: set[fx.Node]) -> list[fx.Node]:
    """Return those of the nodes that others use."""
    return [node for node in nodes if any(user not in nodes for user in node.users)]


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
    cannot = _cannot(model, next(reversed(lines_of(error)), ""))
    text = " ".join(str(error).split("\n\n")[0].split())[:300].rstrip(".")
    if "data-dependent" in text or "DataDependent" in type(error).__name__:
        return TraceError(
            f"{cannot}: forward decides by the values of a tensor, or reads one as a Python number. Use torch.where "
            "instead of an if, and keep the number in a tensor."
        )
    return TraceError(f"{cannot}: {type(error).__name__}: {text}. Forward must run in eval mode on the example input.")


def _cannot(model: nn.Module, line: str) -> str:
    return f"{type(model).__name__} cannot be traced{f' at {line}' if line else ''}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the tracer from warning and logging; what matters of it is raised."""
    loggers = [
        logging.getLogger(f"torch.{name}") for name in ("export", "_export", "fx", "_dynamo", "_guards", "_subclasses")
    ]
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
def innermost_lines() -> Iterator[None]:
    """Let nodes remember the user's innermost line.

    By itself the tracer keeps only frames called ``forward``, so that whatever a helper does seems to happen on the
    line that called it. Where the tracer has no such hook any more, its own choice stands.
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
