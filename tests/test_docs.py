"""What the pages show works: blocks run, links and pictures are there, the page of the shell is the shell's help."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer.main
from PIL import Image

import penjing
from fences import blocks, run_page
from penjing.core.registry import entries

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CLASSES = ("columns", "diagonals", "rows")


def paint(folder: Path, seed: int = 0) -> None:
    """Make a folder of pictures by class: a bright bar whose direction is the class."""
    rng = np.random.default_rng(seed)
    for part, count in (("train", 24), ("test", 8)):
        for name in CLASSES:
            (folder / part / name).mkdir(parents=True)
            for i in range(count):
                x = rng.integers(0, 90, (16, 16, 3)).astype(np.uint8)
                at = rng.integers(2, 12)
                bar = {"columns": np.s_[:, at : at + 3], "rows": np.s_[at : at + 3]}
                x[bar.get(name, (np.arange(16), np.arange(16)))] += 120
                Image.fromarray(x).save(folder / part / name / f"{i}.png")


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the pages speak of: the quickstart's my_nets.py, trained weights, pictures, a run."""
    from safetensors.torch import save_file

    from penjing.data import load
    from penjing.training.loop import fit
    from penjing.training.options import Options

    folder = tmp_path_factory.mktemp("context")
    (module,) = [block for block in blocks(ROOT / "docs" / "quickstart.md") if block.title == "my_nets.py"]
    (folder / "my_nets.py").write_text(module.text)
    names: dict[str, object] = {}
    exec(module.text, names)
    paint(folder / "pictures")
    data = load(folder / "pictures")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = names["build"]()  # type: ignore[operator]
    fit(model, data.train, data.val, Options(epochs=8, lr=0.05, batch=24, precision="32-true"))
    save_file(model.state_dict(), folder / "w.safetensors")
    penjing.compress(model, folder / "pictures", "macs=0.5x", epochs=1, folder=folder / "run")
    return folder


@pytest.fixture
def workplace(context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the context as the working folder; what a page imports and registers goes with it."""
    from penjing.core import registry

    here = tmp_path / "here"
    shutil.copytree(context, here)
    shutil.copytree(ROOT / "examples", here / "examples")
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", [str(here), *sys.path])
    monkeypatch.setattr(registry, "_entries", {kind: registry.entries(kind) for kind in registry.HOMES})
    before = set(sys.modules)
    yield here
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(here)):
            del sys.modules[name]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_of_the_page_runs(page: Path, workplace: Path) -> None:
    run_page(page, workplace)


@pytest.mark.parametrize(
    ("block", "trouble"),
    [
        ("python\n1 / 0", "division by zero"),
        ("sh\nfalse", "page.md:1: false ended with 1"),
        ("sh\npenjing list criterias", "criterias"),
        ("sh\necho one\n```\n\n```text\ntwo", "does not say"),
        ("python\nprint('one')\n```\n\n```text\ntwo", "does not say"),
        ("yaml\nbudgt: {macs: 0.5x}", "budgt"),
        ("yaml\nsteps: [{prune: {criterion: l3}}]", "l3"),
        ("sh no-rum\nfalse", "no-rum"),
    ],
)
def test_a_block_that_is_wrong_is_found(block: str, trouble: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"```{block}\n```\n")
    with pytest.raises(Exception, match=re.escape(trouble)):
        run_page(page, tmp_path)


def test_the_pieces_of_the_page_inherit_the_contracts(workplace: Path) -> None:
    """Installed as a package is, by its entry point."""
    for block in blocks(ROOT / "docs" / "extend.md"):
        if block.title:
            (workplace / block.title).parent.mkdir(exist_ok=True)
            (workplace / block.title).write_text(block.text)
    project = tomllib.loads((workplace / "pyproject.toml").read_text())["project"]
    told = workplace / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    told.mkdir()
    (told / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = project["entry-points"]["penjing"].items()
    (told / "entry_points.txt").write_text("[penjing]\n" + "".join(f"{name} = {what}\n" for name, what in points))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "tests/contracts",
        "-k",
        "swing or traffic or mute or climb or powers",
        "-p",
        "no:cacheprovider",
    ]
    path = os.pathsep.join([str(workplace), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    passed = re.search(r"(\d+) passed", done.stdout)
    assert done.returncode == 0 and passed and int(passed[1]) >= 30, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("page", "kind"),
    [
        ("criteria", "criterion"), ("allocators", "allocator"), ("budgets", "cost"),
        ("recipes", "step"), ("recipes", "rewrite"), ("report", "reference"), ("recipes", "term"),
        ("methods", "method"), ("lowrank", "factorization"), ("quantization", "quantizer"),
    ],
)  # fmt: skip
def test_the_page_of_a_kind_names_all_of_it(page: str, kind: str) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    ours = [name for name, entry in entries(kind).items() if entry.__module__.startswith("penjing.")]
    assert [name for name in ours if f"`{name}`" not in text] == []


@pytest.mark.parametrize("name", ["frontier", "fewbits"])
def test_the_picture_is_that_of_the_rows(name: str) -> None:
    """`benchmarks/draw.py` and `fewbits.py --plot` draw them again; letters and numbers must agree.

    Lines are those of matplotlib's version.
    """
    script = {"frontier": "draw", "fewbits": "fewbits_show"}[name]
    spec = importlib.util.spec_from_file_location(script, ROOT / "benchmarks" / f"{script}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    now = module.drawn(module.read(ROOT / "benchmarks" / "results" / name))
    kept = (ROOT / "docs" / "figures" / f"{name}.svg").read_text(encoding="utf-8")
    assert re.findall(r">([^<]+)</text>", now) == re.findall(r">([^<]+)</text>", kept)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_links_to_is_there(page: Path) -> None:
    """The site's builder checks pages and anchors; pictures, and the links of the README, are left to us."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        file, _, anchor = target.partition("#")
        there = page.parent / file if file else page
        assert there.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), re.M)
            assert anchor in [re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings], target


def test_the_navigation_names_every_page_once() -> None:
    nav = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]

    def pages(entries: list[dict[str, object]]) -> list[str]:
        found = []
        for entry in entries:
            for value in entry.values():
                found += [value] if isinstance(value, str) else pages(value)  # type: ignore[arg-type]
        return found

    assert sorted(pages(nav)) == sorted(page.name for page in PAGES[1:]), "zensical.toml's nav against docs/*.md"


def verbs_of(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every verb below one, by all of its words."""
    for name, verb in group.commands.items():
        yield before + name, verb
        if hasattr(verb, "commands"):
            yield from verbs_of(verb, f"{before}{name} ")


def test_the_page_of_the_shell_is_its_help() -> None:
    """`make cli-page` writes it again."""
    from penjing.cli import app

    told = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8").replace("&#x27;", "'")
    sections = dict(re.findall(r"^##+ `penjing (.+?)`\n(.*?)(?=^##+ |\Z)", told, re.M | re.S))
    verbs = dict(verbs_of(typer.main.get_command(app)))
    assert set(sections) == set(verbs), "make cli-page"
    for verb, one in verbs.items():
        text = " ".join(sections[verb].split())
        flags = {flag for parameter in one.params for flag in (*parameter.opts, *parameter.secondary_opts)}
        shown = set(
            re.findall(r"(?<![\w-])--?[a-z][\w-]*", " ".join(re.findall(r"^\* `([^`]*)`", sections[verb], re.M)))
        )
        assert shown - {"--help", "-h"} == {flag for flag in flags if flag.startswith("-")}, f"{verb}: make cli-page"
        for parameter in one.params:
            told_help = " ".join((getattr(parameter, "help", "") or "").split())
            assert told_help in text, f"{verb} {parameter.name}: make cli-page"
