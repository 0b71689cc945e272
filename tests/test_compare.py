"""What a finished run's folder is good for: load, export, report, bench."""

import json
import re
import shutil

import pytest
import torch
from typer.testing import CliRunner

import penjing
from penjing.cli import app
from penjing.core.errors import BundleError
from penjing.exporting import bundle
from penjing.steps.prune import prune
from tiny import tiny


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    steps = [prune(criterion="l1"), "export", "check"]
    example = torch.randn(2, 3, 8, 8)
    return penjing.run(tiny(), None, steps, "macs=0.6x", folder=folder, example=example, builder="tiny:tiny")


def shell(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_a_runs_network_is_loaded_again(done, tmp_path):
    x = torch.randn(3, 3, 8, 8)
    for place in (done.folder, done.folder / "model.penjing", done.save(tmp_path / "mine.penjing")):
        again = penjing.load(place, tiny)
        with torch.no_grad():
            assert torch.equal(again(x), done.model.eval()(x))
    with pytest.raises(BundleError, match=r"names the builder tiny:tiny.*--trust"):
        penjing.load(done.folder)
    with pytest.raises(BundleError, match="no bundle"):
        penjing.load(tmp_path / "nothing")


@pytest.mark.parametrize("how", [["--trust"], ["--builder", "tiny:tiny"]])
def test_export_gives_the_same_file(done, tmp_path, how):
    said = shell("export", done.folder, "--out", tmp_path / "again.onnx", *how)
    assert said.exit_code == 0 and "differs from the network by" in said.stdout, said.stderr
    assert (tmp_path / "again.onnx").read_bytes() == (done.folder / "model.onnx").read_bytes()


def test_export_refuses_in_a_sentence(done, tmp_path):
    for words, message in (
        ([done.folder], "names the builder tiny:tiny"),
        ([tmp_path], "manifest.json is not there"),
        ([done.folder, "--builder", "tiny:nothing"], "has no builder 'nothing'"),
        ([done.folder, "--builder", "penjing.zoo.resnet:resnet20"], "does not fit its builder: The tensors"),
    ):
        said = shell("export", *words, "--out", tmp_path / "no.onnx")
        assert said.exit_code == 2 and message in said.stderr and not (tmp_path / "no.onnx").exists()


def test_the_report_is_written_again(done, tmp_path):
    def without_drawings(file):
        return re.sub("<svg.*?</svg>", "", file.read_text(), flags=re.DOTALL)

    said = shell("report", done.folder, "--out", tmp_path / "page.html")
    assert said.exit_code == 0 and "<path" in (tmp_path / "page.html").read_text()
    assert without_drawings(tmp_path / "page.html") == without_drawings(done.folder / "report.html")
    shutil.copy(done.folder / "results.json", tmp_path)
    facts = json.loads((tmp_path / "results.json").read_text())
    del facts["rows"]
    for text, message in ((json.dumps(facts), "no rows"), ("[", "cannot be read"), ("3", "")):
        (tmp_path / "results.json").write_text(text)
        said = shell("report", tmp_path)
        assert said.exit_code == 2 and message in said.stderr and not (tmp_path / "report.html").exists()


def test_runs_and_files_are_measured_side_by_side(tmp_path):
    model = penjing.zoo.digits_net(pretrained=True)
    steps = [prune(criterion="l1"), "export", "check"]
    penjing.run(model, None, steps, "macs=0.3x", folder=tmp_path, example=torch.randn(2, 1, 8, 8),
                builder="penjing.zoo.digits:trained")  # fmt: skip
    said = shell("bench", tmp_path / "model.onnx", tmp_path, "--rounds", 5, "--json")
    rows = json.loads(said.stdout)
    assert [row["file"] for row in rows] == [str(tmp_path / "model.onnx"), str(tmp_path)]
    assert rows[0]["bytes"] == rows[1]["bytes"]


@pytest.fixture(scope="module")
def quantized(tmp_path_factory):
    from penjing.graph.quantized import Precision, attach, start
    from penjing.quantizers.lsq import lsq

    model = tiny().eval()
    attach(model, {"conv1": Precision(lsq(), 4)})
    start(model, ["conv1"], {"conv1": torch.randn(4, 16, 8, 8).relu()})
    return bundle.write(tmp_path_factory.mktemp("few") / "b", model, builder="tiny:tiny", inputs=[[3, 8, 8]],
                        finished=True)  # fmt: skip


def test_a_bundle_in_few_bits_is_exported_measured_and_shown_by_its_layers(quantized, tmp_path):
    file, few = tmp_path / "few.onnx", "conv1 (lsq, 4 bits)"
    said = shell("export", quantized, "--trust", "--out", file)
    assert said.exit_code == 0 and "values tip over in rounding" in said.stdout and few in said.stdout, said.stderr
    said = shell("bench", quantized, file, "--trust", "--rounds", 5)
    assert said.exit_code == 0 and f"{quantized}: in few bits are {few}" in said.stdout, said.stderr
    said = shell("inspect", quantized, "--trust")
    assert said.exit_code == 0 and "32 -> 4 bits, reads 4 (lsq)" in said.stdout, said.stderr


def test_inspect_of_a_folder_takes_its_own_weights_and_shape(done):
    said = shell("inspect", done.folder, "--trust", "--json")
    assert said.exit_code == 0 and json.loads(said.stdout)["macs"] == done.results["rows"][1]["macs"], said.stderr
    for words, message in (([], "names the builder tiny:tiny"), (["--trust", "--weights", "w.pt"], "holds its own")):
        said = shell("inspect", done.folder, *words)
        assert said.exit_code == 2 and message in said.stderr
