"""How a verb ends: one sentence and an exit code for what went wrong, results and events where they are looked for."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

EXIT_CODES = (
    "Exit codes: 0 done, 1 the budget cannot be met or is missed, 2 wrong input, 3 an error of penjing's own, "
    "130 interrupted."
)


RESUME = "penjing resume FOLDER goes on with what had begun"


@contextlib.contextmanager
def manners(*, quiet: bool = False, lines: bool = False, onward: str = "") -> Iterator[None]:
    """Turn what users can mend into one sentence and an exit code.

    ``quiet`` silences progress; with ``lines`` events go to stdout as JSON lines, an error among them. ``onward`` says
    how to go on after Ctrl-C, if at all.
    """
    from penjing.core import console
    from penjing.core.errors import Infeasible, PenjingError

    with console.quiet(quiet), console.json_lines(lines):
        try:
            yield
            sys.stdout.flush()
        except (typer.Exit, typer.Abort):
            raise
        except BrokenPipeError:  # whoever reads our output has seen enough
            console.drop_stdout()
            raise typer.Exit(0) from None
        except Infeasible as error:
            _end(str(error), 1)
        except PenjingError as error:
            _end(str(error), 2)
        except KeyboardInterrupt:
            _end(f"interrupted{onward and '; '}{onward}.", 130)
        except OSError as error:
            console.drop_stdout()
            _end(f"{error.filename or 'the output'} cannot be used: {error.strerror or error}.", 2)
        except Exception as error:
            if os.environ.get("PENJING_TRACEBACK"):
                raise
            what = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}".rstrip(".")
            _end(f"an error of penjing's own, {what}. Please report it; PENJING_TRACEBACK=1 shows where.", 3)


def _end(said: str, code: int) -> NoReturn:
    from penjing.core import console
    from penjing.core.errors import sentence

    told = sentence(said)
    console.emit("error", text=told, exit=code)
    typer.echo(f"penjing: {told}", err=True)
    raise typer.Exit(code) from None


class Verbs(TyperGroup):
    """The verbs; what is wrong with a command's own words is told in one sentence, too."""

    def make_context(self, *args: Any, **options: Any) -> Any:
        """Read the words before the verb."""
        with _usage():
            return super().make_context(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        """Read the words after it, and run it."""
        with _usage():
            return super().invoke(ctx)


@contextlib.contextmanager
def _usage() -> Iterator[None]:
    from penjing.core.errors import sentence

    try:
        yield
    except Exception as error:
        told = getattr(error, "format_message", str)()  # typer has click's classes under names of its own
        if not hasattr(error, "format_message") or not told or "\n" in told:  # the help, where there are no words
            raise
        where = getattr(getattr(error, "ctx", None), "command_path", "penjing")
        _end(f"{sentence(told)} See {where} --help.", 2)
