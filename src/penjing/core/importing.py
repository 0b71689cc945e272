"""Find an object that a user names as ``package.module:function``."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from penjing.core.errors import RecipeError, did_you_mean


def import_object(spec: str, what: str) -> Any:
    """Return the object named ``package.module:attribute``; the working folder is searched too.

    Raises: RecipeError naming the module or attribute that is not there; ``what`` says what was looked for.
    """
    module_name, _, attribute = spec.partition(":")
    if not module_name or not attribute:
        raise RecipeError(f"{what} {spec!r} is not package.module:function, such as my_nets.tiny:build.")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise RecipeError(
            f"{what} {spec!r}: there is no module {error.name!r}; is it installed or in {here}?"
        ) from None
    except Exception as error:
        raise RecipeError(
            f"{what} {spec!r}: importing {module_name} failed with {type(error).__name__}: {error}"
        ) from None
    if not hasattr(module, attribute):
        public = [n for n in vars(module) if not n.startswith("_")]
        raise RecipeError(f"{what} {spec!r}: {module_name} has no {attribute!r}.{did_you_mean(attribute, public)}")
    return getattr(module, attribute)
