"""Networks without classes: pictures alone, masks, pyramids; from Python and from the shell."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset
from typer.testing import CliRunner

import penjing
from nets.strangers import Mask, Pyramid
from penjing.cli import app
from penjing.core.errors import DataError, PlanError, TrainError
from penjing.data import as_data, load
from penjing.steps.train import train
from penjing.training.follow import distance

X = torch.randn(60, 3, 16, 16, generator=torch.Generator().manual_seed(0))
MASKS = (X.sum(1) > 0).long() + (X[:, 0] > 1).long()
LINE = [penjing.prune(images=32), "reconstruct", "recalibrate"]


class Batches:
    """A loader with nothing but __iter__."""

    def __iter__(self):
        yield from X.split(25)


def seeded(make):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make().eval()


def builder():
    return seeded(Mask)


def test_pictures_alone_are_divided_and_have_no_classes():
    for given in (X, TensorDataset(X), DataLoader(TensorDataset(X), 8), Batches()):
        data = as_data(given)
        assert (len(data.train) + len(data.val), len(data.test)) == (48, 12), given
        assert not data.labelled and data.num_classes == 0 and data.shape == (3, 16, 16)
        assert next(data.train.batches(4))[1] is None
        assert sum(len(x) for x in data.calibration(20, 0)) == 20


def test_no_picture_is_in_two_parts():
    data = as_data(Batches())
    found = [x[:, 0, 0, 0] for part in (data.train, data.val, data.test) for x, _ in part.batches(7)]
    assert sorted(torch.cat(found).tolist()) == sorted(X[:, 0, 0, 0].tolist())


def test_classes_on_one_side_alone_are_refused():
    labelled, bare = TensorDataset(X, torch.arange(60) % 3), TensorDataset(X)
    with pytest.raises(DataError, match="test, has no class for each picture, and train has a class"):
        as_data((labelled, bare))
    with pytest.raises(DataError, match="test, has a class for each picture, and train has no class"):
        as_data((bare, labelled))


def test_a_loader_of_pictures_that_shuffles_is_refused():
    class Shuffling:
        def __iter__(self):
            yield from X[torch.randperm(60)].split(20)

    with pytest.raises(DataError, match="changes its order"):
        as_data(Shuffling())


def test_a_map_is_cut_and_follows_the_original():
    net = seeded(Mask)
    result = penjing.run(net, X, [*LINE, "export", "check"], "macs=0.6x")
    before, after = (row["macs"] for row in result.results["rows"])
    assert 0.3 < after / before <= 0.6
    assert result.results["distance"] == pytest.approx(distance(result.model, net, as_data(X).val), abs=1e-3)
    assert result.results["distance"] < 60 and "no classes" in result.results["remarks"][-1]
    assert [row["accuracy"] for row in result.results["rows"]] == [None, None]


def test_every_level_of_a_pyramid_is_scored_and_followed():
    net = seeded(Pyramid)
    result = penjing.run(net, X, [*LINE, train(epochs=2, batch=16, lr=0.01), "export"], "macs=0.6x")
    assert not [note for note in result.results["pinned"] if "score" in note["why"]]
    assert result.results["trained"][0]["terms"] == ["outputs(weight=1.0)", "hints(weight=20.0, layers=())"]


def test_training_without_labels_never_leads_away():
    result = penjing.run(seeded(Mask), X, [*LINE, train(epochs=1, batch=16, lr=3.0, terms=("outputs",))], "macs=0.6x")
    untrained = penjing.run(seeded(Mask), X, LINE, "macs=0.6x")
    assert any("led away from the original" in remark for remark in result.results["remarks"])
    assert result.results["distance"] == pytest.approx(untrained.results["distance"])


def test_masks_are_learned_and_void_does_not_count():
    void = MASKS.clone()
    void[:, :2] = 255
    data = (TensorDataset(X, void), TensorDataset(X, MASKS))
    net = seeded(Mask)
    steps = [penjing.prune(criterion="l1"), train(epochs=4, batch=16, lr=0.05, terms=())]
    small = penjing.run(net, data, steps, "macs=0.7x").model.eval()
    with torch.no_grad():
        right = [float((m(X).argmax(1)[:, 2:] == MASKS[:, 2:]).float().mean()) for m in (net, small)]
    assert right[1] > right[0] + 0.05


def test_masks_of_another_size_are_one_sentence():
    data = (TensorDataset(X, MASKS[:, :8, :8]), TensorDataset(X, MASKS[:, :8, :8]))
    with pytest.raises(TrainError, match=r"its masks are \[.*, 8, 8\]; they need"):
        penjing.run(seeded(Mask), data, [penjing.prune(criterion="l1"), train(epochs=1)], "macs=0.7x")


def test_what_counts_wrong_classes_is_refused():
    with pytest.raises(PlanError, match="The budget error counts wrong classes"):
        penjing.run(seeded(Mask), X, LINE, "error=+1")
    with pytest.raises(PlanError, match="'scratch' learns from labels"):
        penjing.run(seeded(Mask), X, LINE, "macs=0.7x", references=("scratch",))


def test_a_folder_of_pictures_from_the_shell(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(30):
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    data = load(tmp_path)
    assert (len(data.train) + len(data.val), len(data.test), data.classes) == (24, 6, ())
    out = tmp_path / "run"
    command = [
        "compress",
        "test_dense:builder",
        str(tmp_path),
        "--budget",
        "macs=0.7x",
        "--epochs",
        "0",
        "-o",
        str(out),
    ]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert (out / "model.onnx").exists() and (out / "report.html").exists()
