"""The fenced blocks of a Markdown page, run as a reader would run them.

A python block runs, together with those above it, a line of a sh block in the page's folder; what a text block after
one shows must be in what it said; a yaml block is read as a recipe or a part of one. A block with
``title="NAME"`` is written into that file and not run. In its first line a block may say ``no-run``, for what a test
cannot do (install, an hour's work), or ``may-miss``, for a budget that the machine decides, where exit code 1 is as
good as 0.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from markdown_it import MarkdownIt
from typer.testing import CliRunner

LANGUAGES = {"python", "sh", "yaml", "toml", "text", "console"}
MARKS = {"no-run", "may-miss"}


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, marks, title, text, and where it begins."""

    language: str
    marks: frozenset[str]
    title: str
    text: str
    page: Path
    line: int

    @property
    def where(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page; both ``sh no-run`` and ``{ .sh .no-run }`` are understood."""
    found = []
    for token in MarkdownIt().parse(page.read_text(encoding="utf-8")):
        if token.type != "fence":
            continue
        title = re.search(r'title="([^"]+)"', token.info)
        language, *marks = re.sub(r'[{}]|title="[^"]+"|(?<!\S)\.', " ", token.info).split() or [""]
        assert token.map is not None
        block = Block(language, frozenset(marks), title[1] if title else "", token.content, page, token.map[0] + 1)
        assert language in LANGUAGES and block.marks <= MARKS, f"{block.where}: what is {token.info!r}?"
        found.append(block)
    return found


def run_page(page: Path, folder: Path) -> None:
    """Run the blocks of a page, in order, in a folder that is the working folder."""
    names: dict[str, Any] = {"__name__": "page"}
    said: str | None = None
    for block in blocks(page):
        if block.language == "text" and said is not None:
            missing = [line for line in block.text.splitlines() if line not in said]
            assert not missing, f"{block.where}: the block above does not say {missing}, but\n{said}"
        if block.title:
            file = folder / block.title
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text, encoding="utf-8")
        run = _nothing if "no-run" in block.marks else _RUN.get(block.language, _nothing)
        said = run(block, names)


def _python(block: Block, names: dict[str, Any]) -> str | None:
    code = compile("\n" * block.line + block.text, str(block.page), "exec")
    if block.title:
        return None
    with contextlib.redirect_stdout(io.StringIO()) as told:
        exec(code, names)
    return told.getvalue()


def _sh(block: Block, names: dict[str, Any]) -> str:
    told = ""
    allowed = {0, 1} if "may-miss" in block.marks else {0}
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["penjing"]:
            code, said = _penjing(words[1:])
        elif words:
            done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
            code, said = done.returncode, done.stdout + done.stderr
        else:
            continue
        assert code in allowed, f"{block.where}: {line} ended with {code}:\n{said}"
        told += said
    return told


def _penjing(words: list[str]) -> tuple[int, str]:
    """Run the shell's verb in this process, which has torch already."""
    from penjing.cli import app

    kept, sys.argv = sys.argv, ["penjing", *words]
    try:
        done = CliRunner().invoke(app, words)
    finally:
        sys.argv = kept
    return done.exit_code, f"{done.output}{done.exception or ''}"


def _yaml(block: Block, names: dict[str, Any]) -> None:
    """Read a recipe, or the parts of one that it shows; what is a part stands in for what is missing."""
    from penjing import recipe

    found = yaml.safe_load(block.text)
    found = {"steps": found} if isinstance(found, list) else found
    assert isinstance(found, dict), f"{block.where}: a recipe has keys"
    recipe.parse({"model": "my_nets:build", "data": "digits", "steps": ["prune"]} | found, block.where)


def _nothing(block: Block, names: dict[str, Any]) -> None:
    """Leave a block that nobody runs."""


_RUN: dict[str, Callable[[Block, dict[str, Any]], str | None]] = {"python": _python, "sh": _sh, "yaml": _yaml}
