"""What a user calls by name, with arguments: ``package.module:function(key=value)``, read and never evaluated."""

from __future__ import annotations

import ast
import inspect
import math
import typing
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from penjing.core.errors import PenjingError

LONGEST = 1000
"""Characters of a spec; longer ones are no name, and parsers of nested text take memory by its length."""


@dataclass(frozen=True)
class Spec:
    """A name and the keyword arguments that it is called with, which are plain values."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return it as ``read`` reads it."""
        given = ", ".join(f"{key}={value!r}" for key, value in self.arguments.items())
        return f"{self.name}({given})" if given else self.name

    @classmethod
    def read(cls, text: str, error_type: type[PenjingError]) -> Spec:
        """Take a spec apart. Values are numbers, strings, true or false, None, and tuples and lists of these.

        Raises: ``error_type`` for what is no such spec.

        >>> Spec.read("resnet56(num_classes=100)", PenjingError)
        Spec(name='resnet56', arguments={'num_classes': 100})
        """
        name, bracket, rest = text.strip().partition("(")
        name = name.rstrip()
        if not bracket:
            return cls(name)
        shown = text if len(text) <= 80 else f"{text[:77]}..."
        wrong = f"{shown!r} is not right: write NAME(key=value, ...)"
        if len(text) > LONGEST:
            raise error_type(f"{wrong}, in no more than {LONGEST} characters.")
        try:
            with warnings.catch_warnings(action="ignore"):  # such as of a backslash that escapes nothing
                call = ast.parse(f"f({rest}", mode="eval").body
        except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
            why = error.msg if isinstance(error, SyntaxError) else "it cannot be read"
            raise error_type(f"{wrong} ({why}).") from None
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
            raise error_type(f"{wrong}, and nothing after the closing bracket.")
        if call.args or any(one.arg is None for one in call.keywords):
            raise error_type(f"{wrong}; every argument needs its name.")
        found: dict[str, Any] = {}
        for one in call.keywords:
            assert one.arg is not None
            if one.arg in found:
                raise error_type(f"{wrong}; {one.arg} is given twice.")
            try:
                found[one.arg] = _literal(one.value)
            except (ValueError, OverflowError):
                raise error_type(
                    f"{wrong}; {one.arg} must be a plain value: a number, a quoted text, True, False, None, or a list "
                    "or tuple of these."
                ) from None
        return cls(name, found)

    def fitted(self, function: Callable[..., Any], error_type: type[PenjingError]) -> dict[str, Any]:
        """Return the arguments, checked against what a function takes and what it says of their types.

        Raises: ``error_type`` naming the argument, the function, and the arguments that it takes.
        """
        try:
            taken = inspect.signature(function).parameters
        except ValueError:  # some callables written in C have no signature; the call itself will tell
            return dict(self.arguments)
        named = {key: p for key, p in taken.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        takes = f"it takes {', '.join(named)}" if named else "it takes none"
        if not any(p.kind is p.VAR_KEYWORD for p in taken.values()):
            for key in self.arguments:
                if key not in named:
                    raise error_type(f"{self.name} has no argument {key!r}: {takes}.")
        lacking = [
            key
            for key, p in taken.items()
            if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and key not in self.arguments
        ]
        if lacking:
            first = lacking[0]
            raise error_type(
                f"{self.name} cannot be called without {', '.join(map(repr, lacking))}: write "
                f"{self.name}({first}=...); {takes}."
            )
        return {key: self._of_type(key, value, function, takes, error_type) for key, value in self.arguments.items()}

    def _of_type(self, key: str, value: Any, function: Any, takes: str, error_type: type[PenjingError]) -> Any:
        from pydantic import TypeAdapter, ValidationError

        try:
            hints = typing.get_type_hints(function.__init__ if inspect.isclass(function) else function)
            adapter = TypeAdapter(hints.get(key, Any))
        except Exception:  # a user's annotation may be anything, and is then no check
            return value
        try:
            return adapter.validate_python(value)
        except ValidationError as error:
            why = error.errors()[0]["msg"]
            raise error_type(f"{self.name}: {key} = {repr(value)[:60]} is not right: {why}; {takes}.") from None


def _literal(node: ast.expr) -> Any:
    """Return the plain value that is written.

    Raises: ValueError for anything else.
    """
    if isinstance(node, ast.Tuple | ast.List):
        values = [_literal(one) for one in node.elts]
        return tuple(values) if isinstance(node, ast.Tuple) else values
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        number = _literal(node.operand)
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ValueError
        return -number if isinstance(node.op, ast.USub) else number
    if not isinstance(node, ast.Constant):
        raise ValueError
    value = node.value
    finite = not isinstance(value, int | float) or math.isfinite(value)
    if not finite or not isinstance(value, str | int | float | bool | None):
        raise ValueError
    return value
