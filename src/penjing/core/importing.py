"""Find and call what a user names as ``package.module:function``, with or without arguments."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from penjing.core.errors import PenjingError, did_you_mean, reason
from penjing.core.spec import Spec


def call_named(spec: str, what: str, error_type: type[PenjingError]) -> Any:
    """Return what the function named ``package.module:function`` returns; a class works as well.

    ``package.module:function(key=value, ...)`` passes arguments, see ``penjing.core.spec``.

    Raises: ``error_type`` as ``find_named`` does, and for a function that takes other arguments or fails; a
    PenjingError of the function's own passes.
    """
    function = find_named(spec, what, error_type)
    arguments = Spec.read(spec, error_type).fitted(function, error_type)
    try:
        return function(**arguments)
    except PenjingError:
        raise
    except (Exception, SystemExit) as error:
        raise error_type(f"{spec} failed with {reason(error)}") from error


def find_named(spec: str, what: str, error_type: type[PenjingError]) -> Callable[..., Any]:
    """Return the function that ``package.module:function`` names, with or without arguments; it is not called.

    The working folder is searched too, as ``python -m`` does. ``what`` says in messages what was looked for.

    Raises: ``error_type`` for a module or function that is not there.
    """
    asked = Spec.read(spec, error_type)
    module_name, _, name = asked.name.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), name)):
        raise error_type(f"{spec!r} is not of the form package.module:{what}.")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise error_type(f"{module_name} cannot be imported: it needs {error.name!r}.") from error
        raise error_type(f"There is no module {error.name!r} ({spec}): put its folder on PYTHONPATH.") from None
    except (Exception, SystemExit) as error:
        raise error_type(f"{module_name} cannot be imported: {reason(error)}") from error
    function = getattr(module, name, None)
    if function is not None and not callable(function):
        raise error_type(f"{spec} is {type(function).__name__}, which cannot be called.")
    if function is None:
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise error_type(f"{module_name} has no {what} {name!r}.{did_you_mean(name, known) if known else ''}")
    found: Callable[..., Any] = function
    return found
