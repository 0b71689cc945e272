"""YAML that a user wrote, read so that no file can do harm: no aliases, no tags, no huge files, no key twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import yaml

from penjing.core.errors import RecipeError
from penjing.core.files import read_limited

LARGEST_BYTES = 1_000_000
DEEPEST = 100
"""Lists and mappings within one another; PyYAML takes the square of their number in time."""

LONGEST = 400
"""Characters of a number; of 1:1:1:..., which YAML counts in sixties, PyYAML takes the square of its length in time."""

NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class Loader(yaml.SafeLoader):
    """Refuses a key that is written twice, and leaves the values below keys in ``verbatim`` as they are written.

    YAML would turn the +0.5 of a budget, a difference, into 0.5, a bound.
    """

    verbatim: ClassVar[frozenset[str]] = frozenset()

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Return a value; PyYAML lets its own mistakes about odd ones out as they are."""
        kind = node.tag.rpartition(":")[2]
        try:
            if node.tag in NUMBERS and len(node.value) > LONGEST:
                raise ValueError
            return super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, ValueError):
            shown = str(node.value)[:40]
            raise yaml.constructor.ConstructorError(None, None, f"{shown!r} is no {kind}", node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the mapping."""
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise RecipeError(f"the key in line {key.start_mark.line + 1} is no name.")
            if key.value in seen:
                raise RecipeError(f"the key {key.value!r} in line {key.start_mark.line + 1} is written twice.")
            seen.add(key.value)
        found: dict[Any, Any] = super().construct_mapping(node, deep=True)
        for key, value in node.value:
            if key.value in found and key.value in self.verbatim and isinstance(value, yaml.MappingNode):
                plain = ((name.value, one.value) for name, one in value.value if isinstance(one, yaml.ScalarNode))
                found[key.value] |= dict(plain)
        return found


def read(path: Path, what: str, loader: type[Loader] = Loader) -> dict[Any, Any]:
    """Return the keys and values of a file; ``what`` says what it should be, such as ``"a recipe"``.

    Raises: RecipeError naming the file, and the line where there is one.
    """
    try:
        raw = read_limited(path, LARGEST_BYTES)
        if raw is None:
            raise RecipeError(f"{path} has more than {LARGEST_BYTES:,} bytes; that is not {what}.")
        text = raw.decode("utf-8")
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    data = parse(text, str(path), what, loader)
    if not isinstance(data, dict):
        raise RecipeError(f"{path} must hold key: value pairs; it holds {type(data).__name__}.")
    return data


def parse(text: str, where: str, what: str, loader: type[Loader] = Loader) -> Any:
    """Return what YAML says.

    Raises: RecipeError naming the line.
    """
    try:
        depth = 0
        for event in yaml.parse(text, yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise RecipeError(f"{where} uses YAML aliases; write the values out.")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise RecipeError(f"{where} is nested more than {DEEPEST} deep; that is not {what}.")
        return yaml.load(text, loader)
    except RecipeError as error:
        raise RecipeError(str(error) if str(error).startswith(where) else f"{where}: {error}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}," if mark else ""
        raise RecipeError(f"{where}{line} is not YAML: {getattr(error, 'problem', None) or error}.") from None


def written(data: Any) -> str:
    """Return plain data as YAML, keys in their order.

    >>> print(written({"steps": ["prune", {"train": {"epochs": 3}}]}), end="")
    steps:
    - prune
    - train:
        epochs: 3
    """
    return yaml.safe_dump(data, sort_keys=False, width=120, allow_unicode=True)
