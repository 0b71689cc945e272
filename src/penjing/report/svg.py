"""Turn a matplotlib figure into SVG that belongs to the page: its colours, its font, no names of its own.

Figures are drawn in stand-in colours; here they become the CSS variables of the page, so that one drawing serves
light, dark and paper. What matplotlib adds for stand-alone files (style sheet, metadata, fixed size) is dropped.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from matplotlib.figure import Figure

INK, SOFT, LINE, PALE, MOSS, CLAY, STONE, PAPER = (f"#0a0a0{i}" for i in range(8))
_VARIABLES = dict(
    zip(
        (INK, SOFT, LINE, PALE, MOSS, CLAY, STONE, PAPER),
        ("ink", "soft", "line", "pale", "moss", "clay", "stone", "paper"),
        strict=True,
    )
)
LIGHT = {"ink": "#1d2420", "soft": "#56625b", "line": "#cdd5cf", "pale": "#e6efe9", "moss": "#2f6f4e",
         "stone": "#8a8f8c", "paper": "#ffffff"}  # fmt: skip
DARK = {"ink": "#e8ece9", "soft": "#a9b4ad", "line": "#414b45", "pale": "#26332c", "moss": "#7cc29a",
        "stone": "#9aa19d", "paper": "#1b201d"}  # fmt: skip
"""The colours of a picture that stands alone."""

_NAMESPACE = re.compile(r"^\{[^}]*\}")
_FONT_FAMILY = re.compile(r"font-family:[^;]*;?")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")


@contextlib.contextmanager
def drawing(key: str) -> Iterator[None]:
    """Draw inside the block with settings of ours, whatever the user's own matplotlib settings are."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        # A layer name may hold letters that the font used for measuring lacks; the reader's browser has them.
        warnings.filterwarnings("ignore", message=r"(?s)Glyph .* missing from")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "svg.fonttype": "none",
                "svg.hashsalt": key,
                "text.parse_math": False,
                "font.size": 12,
                "text.color": INK,
                "axes.edgecolor": LINE,
                "axes.labelcolor": SOFT,
                "axes.titlesize": 12,
                "axes.titlecolor": SOFT,
                "axes.titlelocation": "left",
                "axes.titlepad": 10,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.spines.left": False,
                "axes.grid": True,
                "axes.grid.axis": "y",
                "axes.axisbelow": True,
                "grid.color": LINE,
                "grid.linewidth": 0.8,
                "xtick.color": LINE,
                "xtick.labelcolor": SOFT,
                "ytick.color": LINE,
                "ytick.labelcolor": SOFT,
                "ytick.left": False,
                "legend.frameon": False,
                "legend.fontsize": 12,
            }
        )
        yield


def inline(figure: Figure, key: str) -> str:
    """Return the figure as an SVG element to put into a page; ``key`` keeps its names apart from other figures'."""
    import io
    from xml.etree import ElementTree

    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(file.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if _NAMESPACE.sub("", child.tag) in ("metadata", "style"):
                parent.remove(child)
    width, height = root.attrib["viewBox"].split()[2:]
    for element in root.iter():
        element.tag = _NAMESPACE.sub("", element.tag)
        _adopt(element, key)
    _drop_unused_names(root)
    root.attrib = {"viewBox": f"0 0 {width} {height}", "aria-hidden": "true", "focusable": "false"}
    return re.sub(r">\s+<", "><", ElementTree.tostring(root, encoding="unicode"))


def alone(picture: str) -> str:
    """Make an inline picture a file of its own, on paper of its own, light or dark as the reader's system is."""

    def colours(values: Mapping[str, str]) -> str:
        return "".join(f"--{name}:{value};" for name, value in values.items())

    style = (
        f"<style>svg{{{colours(LIGHT)}font-family:system-ui,sans-serif}}"
        f"@media(prefers-color-scheme:dark){{svg{{{colours(DARK)}}}}}</style>"
        '<rect width="100%" height="100%" rx="8" style="fill:var(--paper)"/>'
    )
    opening, rest = picture.split(">", 1)
    opening = opening.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1).replace(' aria-hidden="true"', "")
    return f"{opening}>{style}{rest}\n"


def _adopt(element: Element, key: str) -> None:
    named = {_NAMESPACE.sub("", name): value for name, value in element.attrib.items()}
    if "href" in named:
        named["href"] = f"#{key}-{named['href'].removeprefix('#')}"
    if "id" in named:
        named["id"] = f"{key}-{named['id']}"
    if "clip-path" in named:
        named["clip-path"] = _REFERENCE.sub(rf"url(#{key}-\1)", named["clip-path"])
    if "style" in named:
        style = _FONT_FAMILY.sub("", named["style"])
        for colour, variable in _VARIABLES.items():
            style = style.replace(colour, f"var(--{variable})")
        named["style"] = style
    if "d" in named:
        named["d"] = " ".join(named["d"].split())
    element.attrib = named


def _drop_unused_names(root: Element) -> None:
    used = {e.attrib["href"].removeprefix("#") for e in root.iter() if "href" in e.attrib}
    for element in root.iter():
        used.update(_REFERENCE.findall(element.attrib.get("clip-path", "")))
    for element in root.iter():
        if element.attrib.get("id") not in used:
            element.attrib.pop("id", None)
