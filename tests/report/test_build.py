import copy
import re
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from penjing.core.errors import PenjingError, RecipeError
from penjing.report.build import render, write_report

VOID = {"meta", "link", "br"}


class Page(HTMLParser):
    """Collects elements and texts, and fails on tags that do not pair."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.said: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.said.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.said).split())


def test_page_has_every_section_in_order(results: dict[str, Any]) -> None:
    html = render(results)
    assert re.findall(r"<h2>(.*?)</h2>", html) == [
        "The budget",
        "Before and after",
        "What became smaller",
        "Where the time goes",
        "Training",
        "Certificates",
        "What had to stay, and why",
        "How the plan was corrected",
        "How to reproduce this",
        "Words used here",
    ]
    text = Page(html).text
    for said in (
        "0.6 × the original",
        "8.3 % under",
        "same epochs",
        "2.20–2.40",
        "3.0 × 10⁻⁷",
        "zero-padded by a constant",
        "resnet.py:40",
        "norm criteria carry no information here",
        "table tightened",
        "--budget latency=0.6x",
        "prune: {criterion: taylor}",
        "torch 2.13.0",
        "A quiet CPU, 2 cores",
        "1 where latency is measured",
        "2026-11-07 14:03 UTC, in 1 min 33 s",
        "99.00 % to 98.70 %",
        "400 kB",
    ):
        assert said in text, said


def test_page_of_the_barest_run(results: dict[str, Any]) -> None:
    for key in ("recipe", "validation", "diagnostics", "rounds"):
        del results[key]
    for key in ("budget", "sites", "pinned", "certificates", "training", "stages"):
        results[key] = []
    results["files"] = {}
    results["rows"] = results["rows"][:2]
    for row in results["rows"]:
        for key in ("latency", "ratio", "memory"):
            row.pop(key, None)
    text = Page(render(results)).text
    for said in (
        "No budget was set",
        "No site could be changed",
        "Nothing was trained",
        "No certificate was recorded",
        "Nothing was pinned",
        "Latency was not measured",
    ):
        assert said in text, said
    assert "How the plan was corrected" not in text


def test_page_says_how_to_make_the_run_again(results: dict[str, Any]) -> None:
    results["machine"] |= {"training_threads": 8, "system": "Linux x86_64"}
    results["data"] = {"name": "digits", "train": 1293, "val": 144}
    results["resumed"] = [{"at": "2026-11-07T15:00:00", "after": "03-train"}]
    results["trained"] = [{"epochs": 2, "lr": 0.1}]
    results["steps"] = [{"prune": {"criterion": "l1"}}]
    text = Page(render(results)).text
    for said in ("8 in training", "Linux x86_64", "1,293 pictures", "went on once", "2 epochs, peak learning rate 0.1"):
        assert said in text, said
    assert "started from Python" not in text and "Steps, with every option" not in text
    results["command"] = results["recipe"] = ""
    text = Page(render(results)).text
    assert "started from Python" in text and "- prune: {criterion: l1}" in text
    assert '<pre class="command">' not in render(results), "an empty box says nothing"


def test_what_to_bear_in_mind_stands_before_any_number(results: dict[str, Any]) -> None:
    assert "Please note" not in render(results)
    results["remarks"] = ["The original is hardly better than guessing."]
    text = Page(render(results)).text
    assert text.index("hardly better than guessing") < text.index("The budget")


def test_a_page_of_a_hundred_layers_can_be_mailed(results: dict[str, Any]) -> None:
    names = [f"layer{i // 30}.{i % 30}.conv{j}" for i in range(50) for j in (1, 2)]
    results["sites"] = [{"site": name, "kind": "channels", "before": 64, "after": 40} for name in names]
    results["pinned"] = [{"where": name, "units": 16, "why": "zero-padded", "line": "net.py:4"} for name in names]
    results["diagnostics"] = [{"layer": name, "verdict": "odd", "spread": 0.03} for name in names]
    results["training"] *= 100
    assert len(render(results).encode()) < 1_000_000


def test_headings_go_down_one_step_at_a_time(results: dict[str, Any]) -> None:
    results["remarks"] = ["A remark."]
    results["searches"] = [{"step": "02-prune", "allocator": "random"}]
    page = Page(render(results))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1 and {2, 3} == set(levels[1:])
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert ("html", {"lang": "en"}) in page.elements
    title = re.search(r"<title>(.+?)</title>", render(results))
    assert title is not None and "4.1× fewer MACs, budget met" in title[1]


def contrast(one: str, other: str) -> float:
    """As WCAG 2 has it."""

    def luminance(colour: str) -> float:
        digits = colour if len(colour) == 6 else "".join(2 * digit for digit in colour)
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark", "print"])
def test_letters_and_lines_stand_out_in_every_scheme(results: dict[str, Any], scheme: str) -> None:
    style = re.findall(r"<style>(.*?)</style>", render(results), re.S)[0]
    start = {"light": ":root", "dark": "prefers-color-scheme: dark", "print": "@media print"}[scheme]
    block = style[style.index(start) :].partition(":root {" if scheme != "light" else "{")[2].partition("}")[0]
    colours = dict(re.findall(r"--(\w+): #([0-9a-f]+)", block))
    for ground in ("paper", "tray"):
        for letters in ("ink", "soft", "moss", "clay"):
            assert contrast(colours[letters], colours[ground]) >= 4.5, (letters, ground)
    for drawn in ("moss", "clay", "stone"):
        assert contrast(colours[drawn], colours["paper"]) >= 3, drawn


def test_page_needs_nothing_else(results: dict[str, Any]) -> None:
    html = render(results)
    elements = Page(html).elements
    assert not {"script", "iframe", "img", "object", "embed", "base", "form"} & {tag for tag, _ in elements}
    assert "http" not in html.replace("http-equiv", "") and "@import" not in html
    assert "//" not in html
    for tag, attributes in elements:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "xlink:href"):
            value = attributes.get(name)
            assert value is None or value.startswith("#") or (tag, value) == ("link", "data:,")
    assert re.findall(r"url\((.)", html) == ["#"] * html.count("url(")


def test_names_are_unique_and_every_reference_resolves(results: dict[str, Any]) -> None:
    html = render(results)
    names = Counter(a["id"] for _, a in Page(html).elements if "id" in a)
    assert max(names.values()) == 1
    wanted = set(re.findall(r"url\(#([^)]+)\)", html)) | set(re.findall(r'href="#([^"]+)"', html))
    assert len(wanted) > 5 and wanted <= set(names)


def test_every_figure_has_words_and_follows_the_theme(results: dict[str, Any]) -> None:
    html = render(results)
    figures = re.findall(r"<figure.*?</figure>", html, re.S)
    assert len(figures) == 5
    for figure in figures:
        assert len(re.findall(r'role="img" aria-label="[^"]{40,}"', figure)) == 2
        assert "<figcaption>" in figure
        # A fixed colour would vanish on one of the two backgrounds.
        assert not re.search(r"#[0-9a-fA-F]{6}|(?<!-)\b(?:black|white)\b", figure)
    style = re.findall(r"<style>(.*?)</style>", html, re.S)
    assert len(style) == 1
    used = set(re.findall(r"var\(--(\w+)\)", html))
    for block in (style[0], style[0].split("prefers-color-scheme: dark")[1], style[0].split("@media print")[1]):
        defined = set(re.findall(r"--(\w+):", block))
        assert used - {"serif", "sans", "mono", "tiles"} <= defined


def test_every_cell_of_a_stacked_table_is_labelled(results: dict[str, Any]) -> None:
    cells = [attributes for tag, attributes in Page(render(results)).elements if tag == "td"]
    assert len(cells) > 40 and all(cell["data-label"] and cell["role"] == "cell" for cell in cells)


def hostile(value: Any, text: str) -> Any:
    """Replace every free text of the results."""
    if isinstance(value, dict):
        kept = {"name", "kind"} if value.get("name") in ("original", "penjing") else {"kind"}
        return {k: v if k in kept else hostile(v, text) for k, v in value.items()}
    if isinstance(value, list):
        return [hostile(item, text) for item in value]
    return text if isinstance(value, str) else value


def test_user_text_cannot_become_markup(results: dict[str, Any]) -> None:
    attack = "'\"><script>alert(1)</script><img src=x onerror=y>{{ 7*7 }}</style></title>]]>"
    page = Page(render(hostile(results, attack)))
    tags = {tag for tag, _ in page.elements}
    assert not {"script", "img"} & tags
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert sum(tag == "style" for tag, _ in page.elements) == 1
    assert "{{ 7*7 }}" in page.text


def test_same_results_same_bytes(results: dict[str, Any], tmp_path: Path) -> None:
    before = copy.deepcopy(results)
    first = write_report(results, tmp_path / "a.html").read_bytes()
    assert write_report(results, tmp_path / "b.html").read_bytes() == first
    assert results == before


def test_report_is_written_whole_or_not_at_all(results: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.html"
    assert write_report(results, path) == path
    whole = path.read_bytes()
    assert whole.endswith(b"</html>\n") or whole.endswith(b"</html>")
    del results["seed"]
    with pytest.raises(RecipeError, match="no seed,"):
        write_report(results, path)
    assert path.read_bytes() == whole
    assert list(path.parent.iterdir()) == [path]


def test_an_unwritable_path_is_one_clear_sentence(results: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(PenjingError, match=r"taken cannot be written: Is a directory"):
        write_report(results, tmp_path / "taken")
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]
    with pytest.raises(PenjingError, match="/ cannot be written: it is a folder"):
        write_report(results, Path("/"))
    with pytest.raises(PenjingError, match="cannot be written: embedded null byte"):
        write_report(results, tmp_path / "a\0b")


def test_a_missed_budget_and_a_failed_check_are_stamped(results: dict[str, Any]) -> None:
    assert "Budget met" in Page(render(results)).text
    results["budget"][0].update(measured=1.4, met=False)
    results["certificates"][0]["ok"] = False
    text = Page(render(results)).text
    assert "Budget missed" in text and "Budget met" not in text and "Failed: cut equals zeroed" in text
