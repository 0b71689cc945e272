"""The newcomer's page: run every command of docs/newcomer.md in an empty folder, and write what they said into it.

    python benchmarks/newcomer.py

Takes about six minutes of one core's time. Blocks run in the page's order: one with a title is written into that file,
sh and python run, and the text block that follows shows what they wrote to stdout. A block may end with 0 alone, one
marked ``may-miss`` with 1 as well, since the machine decides about a budget; what it then said is shown. The page is
written when all have run; ``--keep`` leaves it as it is.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from fences import Block, blocks  # noqa: E402
from penjing.core.files import write_whole  # noqa: E402
from rows import machine  # noqa: E402

PAGE = ROOT / "docs" / "newcomer.md"
WHERE = "<!-- where it ran -->\n"


def commands(block: Block) -> Iterator[list[str]]:
    """Yield what a block runs."""
    if block.language == "python":
        yield [sys.executable, "-c", block.text]
    elif block.language == "sh":
        yield from (["bash", "-o", "pipefail", "-c", line] for line in block.text.replace("\\\n", " ").splitlines())


def ran(block: Block, folder: Path) -> str:
    """Run a block in a folder and return what it wrote to stdout.

    Raises: SystemExit for a command that fails.
    """
    told = []
    allowed = {0, 1} if "may-miss" in block.marks else {0}
    if "| head" in block.text:
        allowed.add(141)  # who reads the beginning alone hangs up on the writer
    paths = os.pathsep.join([str(folder / ".bin"), os.environ["PATH"]])
    for command in commands(block):
        print(f"{block.where}: {command[-1].splitlines()[0]}", file=sys.stderr, flush=True)
        done = subprocess.run(command, cwd=folder, env=os.environ | {"PATH": paths}, capture_output=True, text=True)
        if done.returncode not in allowed:
            raise SystemExit(f"{block.where} ended with {done.returncode}: {command[-1]}\n{done.stdout}{done.stderr}")
        told.append((done.stdout + (done.stderr if done.returncode == 1 else "")).rstrip())
    return "\n\n".join(told)


def filled(page: Path, folder: Path) -> str:
    """Run the page's blocks in a folder and return its text with what they said."""
    lines = page.read_text(encoding="utf-8").splitlines(keepends=True)
    said: list[tuple[Block, str]] = []
    before = ""
    for block in blocks(page):
        if block.title:
            (folder / block.title).write_text(block.text, encoding="utf-8")
            before = ""
        elif block.language == "text":
            assert before, f"{block.where}: nothing ran before it that said anything"
            said.append((block, before))
            before = ""
        else:
            before = ran(block, folder)
    for block, text in reversed(said):  # from the end, so that the lines of the others stay where they are
        lines[block.line : block.line + block.text.count("\n")] = [f"{text}\n"]
    facts = machine()
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    where = f"{facts['device']}, {facts['threads']} thread; {versions}."
    return re.sub(f"({re.escape(WHERE)}).*\n", lambda found: f"{found[1]}{where}\n", "".join(lines))


def main() -> None:
    """Run the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="run all and leave the page as it is")
    where = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        shim = folder / ".bin" / "penjing"  # the interpreter that runs this, whatever else is called penjing
        shim.parent.mkdir()
        shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m penjing.cli "$@"\n')
        shim.chmod(0o755)
        text = filled(PAGE, folder)
    if not where.keep:
        write_whole(PAGE, text.encode())


if __name__ == "__main__":
    main()
