"""Why it is not faster, in words: what is said follows from the numbers, and what is not known is said to be so."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import penjing
from penjing.cli import app
from penjing.core.errors import RecipeError
from penjing.report import explain, units
from penjing.report.build import render
from penjing.report.results import read
from penjing.report.table import plain


def summary(results: dict[str, Any]) -> list[str]:
    return list(explain.explained(results).summary)


def test_the_summary_says_what_holds_the_time(results: dict[str, Any]) -> None:
    lines = [line.replace("\u00a0", " ") for line in summary(results)]
    assert lines[0].startswith("4.1× fewer MACs, 2.3× as fast: 2.50 ms before, 1.10 ms after, measured on onnxruntime")
    assert lines[0].endswith("time lags behind the work.")
    assert lines[1] == (
        "Layers that were not cut take 9.1 % of the time after and what runs between the layers takes 9.1 %: with all "
        "else gone it would be 12× as fast as the original."
    )
    assert lines[2] == "Not cut, by their time: fc."
    assert lines[3] == "Odd width (conv1): remedies bring 0.200 ms (18 %)." and lines[4] == "No cause found (fc)."


def test_time_that_followed_is_not_blamed(results: dict[str, Any]) -> None:
    results["spending"].update(after_ms=0.6, findings=[])
    lines = summary(results)
    assert lines[0].endswith("time followed the work.") and lines[-1] == "No layer lags behind its work."


def test_multiplications_by_zero_count_as_work_that_went(results: dict[str, Any]) -> None:
    spent = results["spending"]
    spent.update(after_macs=41_000_000, after_ms=2.4)
    for layer in spent["layers"]:
        layer["after"].update(macs=layer["before"]["macs"], density=0.25)
    first = summary(results)[0]
    assert first.startswith("1.00× fewer MACs, 4.0× without those by zero, 1.04× as fast") and "lags" in first


def test_pinned_layers_are_named_with_the_reason(results: dict[str, Any]) -> None:
    results["pinned"] = [{"where": "fc", "units": 10, "why": "it gives the answer"}]
    assert "Not cut, by their time: fc (pinned: it gives the answer)." in summary(results)


def test_the_text_has_layers_by_the_time_lost_and_remedies_by_what_they_bring(results: dict[str, Any]) -> None:
    results["spending"]["findings"].insert(
        0, {**results["spending"]["findings"][0], "where": "layer1.0.conv1", "brings": 0.1}
    )
    text = str(explain.explained(results))
    lines = text.splitlines()
    table = lines[lines.index("Layers, by the time lost") :]
    assert " ".join(table[3].split()) == "conv1 4.0x 0.800 ms 0.500 ms 2.7x 1.6x odd width"
    assert "layer1.0.conv1, conv1: odd width. Writes 13 channels" in text
    assert "Predicted to bring: 0.300 ms (27 %) together." in text and "Predicted to bring: not known." in text
    assert not set(text) & set("×\u00a0–")


def test_a_layer_that_is_gone_is_said_to_be_removed(results: dict[str, Any]) -> None:
    results["spending"]["layers"][1]["after"] = None
    assert explain.cells(read(results).spending.layers[1])[1:] == ["-", "1.40\u00a0ms", "removed", "-", "-"]


def test_a_layer_that_is_a_chain_has_the_time_of_its_stages(results: dict[str, Any]) -> None:
    results["spending"]["layers"][1]["after"] = None
    gone, other = read(results).spending.layers[1::-1]
    assert other.after is not None
    stages = [replace(other, name=f"{gone.name}.{stage}", before=None) for stage in ("first", "last")]
    told = explain.cells(gone, [gone, other, *stages])[3]
    assert told == f"{units.quantity(2 * other.after_ms, 'ms')} in 2"


def test_a_runtime_that_tells_no_layers_is_told_in_one_sentence(results: dict[str, Any]) -> None:
    results["spending"].update(how="whole", note="x tells no times of layers.", layers=[], others=[], findings=[])
    assert str(explain.explained(results)).splitlines()[1:] == ["x tells no times of layers."]


def test_older_results_are_told_apart(results: dict[str, Any]) -> None:
    del results["spending"]
    with pytest.raises(RecipeError, match=r"older penjing. Run it again"):
        str(explain.explained(results))
    assert "Where the time goes" not in render(results)


def test_a_wrong_key_is_named(results: dict[str, Any]) -> None:
    results["spending"]["layers"][0]["before"]["macs"] = "many"
    with pytest.raises(RecipeError, match=r"spending.layers\[0\].before.macs = 'many'"):
        str(explain.explained(results))


def test_an_explanation_can_be_read(results: dict[str, Any]) -> None:
    found = explain.explained(results)
    assert [cause.name for cause in found.causes] == ["odd width", "no cause found"]
    assert [(group.where, group.brings) for group in found.remedies] == [(("conv1",), 0.2), (("fc",), None)]
    assert found.spending.layers[0].lost_ms == 0.3 and plain(found.summary[0]) in str(found)


def test_facts_are_plain_data(results: dict[str, Any]) -> None:
    facts = json.loads(json.dumps(explain.explained(results).to_json()))
    assert facts["causes"][0] == {"name": "odd width", "where": ["conv1"], "brings": 0.2}
    assert facts["layers"][0]["after"]["out_channels"] == 13 and facts["summary"]


def test_the_page_shows_causes_and_escapes_names(results: dict[str, Any]) -> None:
    results["spending"]["findings"][0]["where"] = "<b>conv1</b>"
    page = render(results)
    assert "<h2>Where the time goes</h2>" in page and "keep 12 or 16 in place of 13" in page
    assert "&lt;b&gt;conv1&lt;/b&gt;" in page and "<b>conv1</b>" not in page


def test_the_verb_prints_it_and_says_in_one_sentence_what_is_wrong(results: dict[str, Any], tmp_path: Path) -> None:
    def said(*arguments: str) -> tuple[int, str, str]:
        done = CliRunner().invoke(app, ["explain", *arguments])
        return done.exit_code, done.stdout, done.stderr

    (tmp_path / "results.json").write_text(json.dumps(results))
    assert str(penjing.explain(tmp_path)) == str(explain.explained(results))
    assert said(str(tmp_path)) == (0, f"{explain.explained(results)!s}\n", "")
    code, told, _ = said(str(tmp_path), "--json")
    assert code == 0 and json.loads(told) == json.loads(json.dumps(explain.explained(results).to_json()))
    for text, words in (("{", "cannot be read"), ("[]", "key: value pairs"), ('{"penjing": "0.1.0"}', "have no name")):
        (tmp_path / "results.json").write_text(text)
        code, told, wrong = said(str(tmp_path))
        assert code == 2 and not told and words in wrong and wrong.count("\n") == 1
    code, told, wrong = said(str(tmp_path / "nowhere"))
    assert code == 2 and "nowhere/results.json cannot be read: No such file or directory" in wrong
