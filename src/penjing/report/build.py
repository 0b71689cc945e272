"""Write the page: one HTML file that needs nothing else, neither a network nor scripts."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penjing.core.files import write_whole
from penjing.report import (
    bars,
    explain,
    few_bits,
    leaving,
    light,
    plots,
    record,
    searches,
    sensitivity,
    table,
    units,
    words,
)
from penjing.report.results import Results, read

if TYPE_CHECKING:
    from jinja2 import Template


def write_report(results: Mapping[str, Any], path: Path) -> Path:
    """Write the report of a finished run and return its path.

    The file appears whole or not at all; an older report stays until the new one is complete.

    Raises: RecipeError naming the key of ``results`` that is missing or wrong; PenjingError when the file cannot be
    written.
    """
    return write_whole(path, render(results).encode())


def render(results: Mapping[str, Any]) -> str:
    """Return the page.

    Raises: RecipeError naming the key that is missing or wrong.
    """
    checked = read(results)
    return _template().render(
        r=checked,
        style=_text("style.css"),
        **_sentences(checked),
        **_record(checked),
        **_tables(checked),
        **_pictures(checked),
    )


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    # Names of models, layers and files are the user's text: everything is escaped but our own drawings and style.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=False)
    return environment.from_string(_text("template.html.j2"))


def _text(name: str) -> str:
    return (resources.files("penjing.report") / name).read_text(encoding="utf-8")


def _sentences(results: Results) -> dict[str, Any]:
    return {
        "title": words.title(results),
        "headline": words.headline(results),
        "failed": words.failed(results),
        "tiles": words.tiles(results),
        "comparisons": [*words.comparisons(results), *words.predictions(results)],
        "reads": words.reads(results),
        "bound_notes": [*words.bound_notes(results), *words.lowest(results)],
        "conditions": words.conditions(results),
        "spent": explain.summary(results.spending, results) if results.spending else [],
        "few_bits": few_bits.lines(results.few_bits),
        "fewer_bits": few_bits.summary(results.few_bits),
        "light": light.lines(results.lightened),
        "lighter": light.summary(results.lightened),
        **leaving.told(results.exits),
        "findings": explain.rows(results.spending),
        "asked": words.asked,
        "excess": words.excess,
    }


def _record(results: Results) -> dict[str, Any]:
    return {
        "claim": record.claim,
        "pinned": record.pinned(results),
        "diagnostics": record.diagnostics(results),
        "explained": record.explained,
        "teaching": record.teaching(results),
        "stops": record.stops(results),
        "pictures": record.pictures(results),
        "steps": record.steps(results),
    }


def _tables(results: Results) -> dict[str, Any]:
    columns = table.columns(results.rows)
    unit_of = words.UNITS_OF | {bound.cost: bound.unit for bound in results.budget}
    return {
        "columns": columns,
        "headings": [("network", ""), *((column.heading, "number") for column in columns)],
        "labels": words.LABELS,
        "unit_of": unit_of,
        "apart": units.apart,
        "size": units.size,
        "percent": units.percent,
        "scientific": units.scientific,
        "duration": units.duration,
        "moment": units.moment,
    }


def _pictures(results: Results) -> dict[str, Any]:
    return {
        "trade_off": plots.trade_off(results),
        "widths": bars.widths(results),
        "times": bars.times(results.spending),
        "training": plots.training(results),
        "searches": searches.searches(results),
        "sensitivities": sensitivity.sensitivities(results),
    }
