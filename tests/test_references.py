"""Networks of the same widths by other means: what they share with the result, and what they must not."""

import tempfile

import pytest
import torch
from torch import nn

import penjing
from penjing.core.errors import PlanError
from penjing.references import _training, from_new_weights, refuse_impossible
from penjing.steps.gal import gal
from penjing.steps.gmp import gmp
from penjing.steps.lccl import lccl
from penjing.steps.metapruning import metapruning
from penjing.steps.obc import obc
from penjing.steps.prune import prune
from penjing.steps.rbp import rbp
from penjing.steps.ssl import ssl
from penjing.steps.train import train
from penjing.training.session import Session
from tiny import pictures, tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("pictures"))


def test_two_cuts_at_random_have_the_widths_of_both(folder):
    steps = [prune(criterion="l1", budget={"macs": "0.7x"}), prune(criterion="l1", budget={"macs": "0.4x"})]
    result = penjing.run(tiny(), folder, [*steps, "recalibrate"], references=("random",)).results
    rows = {row["name"]: row for row in result["rows"]}
    assert rows["cut at random, same widths"]["macs"] == rows["penjing"]["macs"] < 0.4 * rows["original"]["macs"]
    assert [c["name"] for c in result["certificates"]] == ["cut equals zeroed"] * 2, "both proofs are kept"
    assert len({line["site"] for line in result["sites"]}) == len(result["sites"]), "each site has one line"
    sums = [sum(line[when] for line in result["sites"]) for when in ("before", "after")]
    assert all(line["before"] >= line["after"] for line in result["sites"]) and sums[1] < sums[0]


def test_a_step_that_trains_and_does_more_lends_the_reference_its_training_alone():
    how = _training([lccl(epochs=3, lr=0.01), train(epochs=2)])
    assert type(how) is train and how.epochs == 5 and _training([lccl(epochs=3)]) == _training([train(epochs=3)])


def test_a_reference_whose_training_is_stopped_says_so(folder, monkeypatch):
    """Ctrl-C ends the training of a reference too."""
    honest = Session._epoch

    def epoch(self, advance):
        if self.job.checkpoint.path.name.startswith("reference-") and self.at.epoch == 2:
            raise KeyboardInterrupt
        honest(self, advance)

    monkeypatch.setattr(Session, "_epoch", epoch)
    steps = [prune(criterion="l1"), train(epochs=4, lr=0.001, batch=16)]
    with tempfile.TemporaryDirectory() as out:
        result = penjing.run(tiny(), folder, steps, "macs=0.5x", folder=out, references=("random", "scratch")).results
    notes = {row["name"]: row["note"] for row in result["rows"]}
    assert notes["cut at random, same widths"] == "same recovery, stopped by hand after 2 of 4 epochs"
    assert notes["from scratch, same widths"].endswith("lr 0.1, stopped by hand after 2 of 4 epochs")


def test_new_weights_forget_every_parameter():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.PReLU(), nn.Flatten(), nn.Linear(4, 2))
    for parameter in model.parameters():
        parameter.data.fill_(7.0)
    one, two = from_new_weights(model, 0), from_new_weights(model, 0)
    assert not any((p == 7).any() for p in one.parameters())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


class Bare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))


def test_what_cannot_be_drawn_anew_is_refused_at_once(folder):
    data = penjing.data.load(folder)
    with pytest.raises(PlanError, match=r"new weights for 0 \(Bare\)"):
        refuse_impossible(("scratch",), nn.Sequential(Bare()), data, [])
    with pytest.raises(PlanError, match="zeros leave these as they are"):
        refuse_impossible(("scratch",), tiny(), data, [prune(rewrite="weights")])
        refuse_impossible(("scratch",), tiny(), data, [gmp(sparsity=0.5)])
    refuse_impossible(("random",), nn.Sequential(Bare()), data, [])
    for step in (gmp(sparsity=0.5), obc(), ssl(), rbp(), gal(), metapruning()):
        with pytest.raises(
            PlanError, match=f"'random' draws anew what a prune chose, and {type(step).__name__} chooses"
        ):
            refuse_impossible(("random",), tiny(), data, ["prune", step])


def test_the_reference_trains_as_the_result_did_but_from_new_weights():
    how = _training([train(epochs=2, batch=32), train(epochs=3, batch=64, optimizer="adamw", mixup=0.5)])
    assert (how.epochs, how.batch, how.optimizer, how.mixup, how.lr, how.terms) == (5, 64, "adamw", 0.5, 3e-3, ())
    assert _training([]).epochs == 1
