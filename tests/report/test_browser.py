"""What only a browser can tell: nothing sticks out on a phone, and the page prints."""

import html as escaping
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from penjing.report.build import render

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PROBE = """<body style="margin:0">
<iframe style="border:0;width:{width}px;height:900px" srcdoc="{page}"></iframe>
<script>
addEventListener("load", () => {{
  const page = document.querySelector("iframe").contentDocument;
  const all = [...page.body.querySelectorAll("*")], box = e => e.getBoundingClientRect();
  document.title = JSON.stringify({{
    width: page.documentElement.scrollWidth,
    sticking_out: all.filter(e => box(e).width && box(e).right > {width} + 1 && !e.closest("pre, thead"))
      .map(e => e.outerHTML.slice(0, 80)),
    scrolling: all.filter(e => e.matches(".table") && e.scrollWidth > e.clientWidth).length,
    smallest_letter: Math.min(...all.filter(e => e.tagName == "text" && box(e).width)
      .map(e => parseFloat(getComputedStyle(e).fontSize) * e.getCTM().a)),
    ground: getComputedStyle(page.body).backgroundColor,
  }});
}});
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH: the page is not looked at in a browser")
def test_page_fits_a_phone_and_prints(results: dict[str, Any], tmp_path: Path) -> None:
    results["name"] = "a_very_long_name_without_any_place_to_break_it_" * 3
    results["sites"][1]["site"] = "features.denseblock3.denselayer12.bottleneck.conv1"
    results["files"] = {"a/very/deep/folder/for/a/file/" * 4 + "model.onnx": 400_000}
    results["remarks"] = ["A remark."]
    results["pinned"] = [
        {"where": f"features.denseblock3.denselayer{i}.conv1", "units": 16, "why": "is cut", "line": "a_network.py:41"}
        for i in range(30)
    ]
    results["trials"] = [
        {"step": "02-prune", "trial": i, "costs": {"error": 10 - i % 7}, "minimise": "error", "met": i % 3 > 0}
        for i in range(1, 40)
    ]
    results["searches"] = [{"step": "02-prune", "allocator": "evolution", "minimise": "error", "unit": "%"}]
    points = [{"kept": 4, "loss": 31.5}, {"kept": 16, "loss": -0.25}]
    sensed = [
        {"site": f"features.denseblock3.denselayer{i}.conv1", "kind": "channels", "size": 64, "kept": 32, "score": 64.0,
         "lost": 4.0, "saves": 0.1, "measured": points, "expected": 0.125}
        for i in range(9)
    ]  # fmt: skip
    results["sensitivity"] = [
        {"step": "02-prune", "cost": "latency", "sites": sensed, "minimise": "error", "unit": "%", "whole": 2.5}
    ]
    few = {"method": "binaryconnect", "bits": 1, "input_bits": 8, "float_bytes": 4e6, "bytes": 125e3, "size_only": True}
    results["few_bits"] = [few | {"layer": f"features.denseblock3.denselayer{i}.conv1"} for i in range(3)]
    for row in results["rows"]:
        row |= {"bundle": 400_000, "packed": 1_600_000}
    # The probe needs a script where the page allows none.
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", render(results))

    def chromium(*arguments: str) -> str:
        command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command.append(f"--user-data-dir={tmp_path}/profile")
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120, check=True)
        return done.stdout

    for width, scheme, ground in (
        (320, 0, "rgb(23, 25, 20)"),
        (390, 0, "rgb(23, 25, 20)"),
        (1200, 1, "rgb(251, 249, 244)"),
    ):
        probe = tmp_path / f"probe{width}.html"
        probe.write_text(PROBE.format(width=width, page=escaping.escape(page)), encoding="utf-8")
        seen = chromium("--dump-dom", f"--blink-settings=preferredColorScheme={scheme}", probe.as_uri())
        title = re.search(r"<title>(.*?)</title>", seen)
        assert title is not None
        told = json.loads(escaping.unescape(title.group(1)))
        assert told.pop("smallest_letter") >= 9.5
        assert told == {"width": width, "sticking_out": [], "scrolling": 0, "ground": ground}

    whole = tmp_path / "page.html"
    whole.write_text(render(results), encoding="utf-8")
    chromium(f"--print-to-pdf={tmp_path}/page.pdf", whole.as_uri())
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
