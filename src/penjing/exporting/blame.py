"""Turn the exporter's failures into one sentence about the user's own code."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from penjing.core.errors import TraceError
from penjing.exporting.inputs import Example
from penjing.exporting.silence import silence
from penjing.graph.program import innermost_lines

_FRAME = re.compile(r'File "([^"<]+)", line (\d+)')
_OPERATOR = re.compile(r"No ONNX function found for <OpOverload\(op='([^']+)'")
_FOREIGN = (str(Path(torch.__file__).parent), str(Path(__file__).parent))


def export_error(model: nn.Module, example: Example, error: BaseException) -> TraceError:
    """Return what to raise when the exporter fails: which module and line, why, and what to try."""
    chain = list(_chain(error))
    text = "\n".join(str(e) for e in chain)
    where = _place(model, chain, text)
    if operator := _OPERATOR.search(text):
        where = _place_of_operator(model, example, operator[1])
        why = f"ONNX has no form of {operator[1]}; replace that operation by simpler ones"
    elif "data-dependent" in text or "DataDependent" in text:
        why = "it decides by the values of a tensor; use torch.where instead of an if on a tensor"
    else:
        reason = next(line.strip() for line in f"{chain[-1]}\n{type(chain[-1]).__name__}".splitlines() if line.strip())
        why = f"{reason.rstrip('.')}; rewrite that part with plain tensor operations"
    return TraceError(f"{type(model).__name__} cannot be exported to ONNX{where}: {why}.")


def run_error(model: nn.Module, inputs: str, error: Exception) -> TraceError:
    """Return what to raise when the model does not even run on these inputs."""
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    where = _place(model, [error], "")
    return TraceError(f"{type(model).__name__} does not run on {inputs}{where}: {reason.rstrip('.')}.")


def _chain(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _place(model: nn.Module, chain: list[BaseException], text: str) -> str:
    """Say which module and which line of the user's code were running, as far as the traces tell."""
    names = {id(module): name for name, module in model.named_modules()}
    module, line = "", ""
    for error in chain:
        for frame, number in traceback.walk_tb(error.__traceback__):
            owner = names.get(id(frame.f_locals.get("self")))
            module = owner or module
            file = frame.f_code.co_filename
            if owner is not None and not file.startswith(_FOREIGN):
                line = f"{file}:{number}"
    return _words(module, line or _last_line(text))


def _place_of_operator(model: nn.Module, example: Example, operator: str) -> str:
    """Find an operator in the program that torch.export makes of the model."""
    try:
        with silence(), innermost_lines():
            program = torch.export.export(model, example[0], kwargs=example[1], strict=False)
            nodes = [*program.graph.nodes, *program.run_decompositions().graph.nodes]
    except Exception:
        return ""
    for node in nodes:
        if str(node.target).startswith(f"{operator}."):
            stack = list(node.meta.get("nn_module_stack", {}).values())
            return _words(stack[-1][0] if stack else "", _last_line(node.meta.get("stack_trace") or ""))
    return ""


def _last_line(trace: str) -> str:
    frames = [found for found in _FRAME.findall(trace) if not found[0].startswith(_FOREIGN)]
    return f"{frames[-1][0]}:{frames[-1][1]}" if frames else ""


def _words(module: str, line: str) -> str:
    return "".join([f" in {module}" if module else "", f" at {line}" if line else ""])
