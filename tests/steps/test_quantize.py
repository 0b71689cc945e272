"""Layers written in few bits: which, in how many, in a run to its file, and what is refused."""

import onnx
import pytest
import torch
from torch import nn

import penjing
from penjing.core.errors import PlanError
from penjing.core.registry import build
from penjing.data import load
from penjing.exporting.bundle import load as unbundled
from penjing.exporting.bundle import write
from penjing.graph.draft import Draft
from penjing.graph.quantized import precisions, quantized
from penjing.graph.trace import trace
from penjing.steps.export import export
from penjing.steps.int8 import int8
from penjing.steps.order import ordered
from penjing.steps.prune import prune
from penjing.steps.quantize import methods, quantize
from penjing.steps.recalibrate import recalibrate
from penjing.steps.state import Run, State
from penjing.steps.train import train
from penjing.training.options import Options, make_optimizer
from tiny import pictures, skilled, tiny

X = torch.randn(4, 3, 8, 8)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return load(pictures(tmp_path_factory.mktemp("pictures")), seed=0)


def state_of(model, data=None):
    model = model.eval()
    return State(model, model, data, ((X,), {}))


@pytest.mark.parametrize(
    ("step", "found"),
    [
        (quantize("twn"), {"conv1": 2, "conv2": 2}),
        (quantize("twn", ends=True), {"stem": 2, "conv1": 2, "conv2": 2, "linear": 2}),
        (quantize("twn", exclude="conv1"), {"conv2": 2}),
        (quantize("twn", bits={"conv2": 32, "*": 2}), {"conv1": 2}),
        (quantize("twn", include="linear:*", ends=True), {"linear": 2}),
    ],
    ids=str,
)
def test_which_layers_are_quantized(tmp_path, step, found):
    run = Run(tmp_path)
    made = step(state_of(tiny()), run)
    assert {name: one.bits for name, one in precisions(made.model).items()} == found
    assert {line["site"]: line["after"] for line in run.noted("sites") if line["kind"] == "twn"} == {
        f"{name}/bits": bits for name, bits in found.items()
    }
    graph = trace(made.model, (X,), proof=False)
    assert {layer.name: layer.bits for layer in graph.layers if layer.bits < 32} == found
    for layer in quantized(made.model).values():
        assert len(layer.weights(layer.weight).unique()) == 3


def test_a_run_ends_in_a_file_of_packed_codes_and_a_bundle(tmp_path, data):
    steps = [quantize("twn"), train(epochs=1, lr=0.01), "export", "check", "evaluate"]
    result = penjing.run(skilled(), data, steps, folder=tmp_path, seed=0)
    original, ours = result.results["rows"][:2]
    codes = sum(16 * 32 * 9 for _ in range(2)) / 4
    assert ours["size"] < original["size"] - 4 * 4 * codes + codes + 3000
    weights = {tensor.name: tensor for tensor in onnx.load(tmp_path / "model.onnx").graph.initializer}
    assert sum("/packed/" in name for name in weights) == 2
    again = unbundled(tmp_path, tiny)
    assert torch.equal(again(X), result.model.eval()(X))
    assert result.results["validation"]["after"] > 50


def test_what_is_kept_between_steps_trains_on_as_if_nothing_had_been(tmp_path, data):
    made = quantize("twn")(state_of(skilled(), data), Run(tmp_path))
    write(tmp_path / "kept", made.model)
    again = unbundled(tmp_path / "kept", tiny)
    ours, theirs = again.state_dict(), made.model.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert precisions(again) == precisions(made.model)


def test_latent_weights_are_what_training_moves(tmp_path, data):
    before = quantize("twn")(state_of(skilled(), data), Run(tmp_path))
    after = train(epochs=1, lr=0.05)(before, Run(tmp_path))
    assert not torch.equal(before.model.conv1.weight, after.model.conv1.weight)
    assert len(after.model.conv1.weight.unique()) > 100


def test_a_plan_prices_bits(tmp_path):
    model = tiny().eval()
    graph = trace(model, (X,), proof=False)
    step = quantize("twn")
    plan = step._plan(graph, Run(tmp_path))
    size = build("cost", "size")
    whole = size(Draft(graph, type(plan)(), lambda: model))
    assert whole - size(Draft(graph, plan, lambda: model)) == 2 * 16 * 32 * 9 * 30 / 8


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: quantize("tvn"), r"no method 'tvn'.*twn"),
        (lambda: quantize("twn", bits=3), r"2 bits, and 32 leaves a layer in floats; got 3"),
        (lambda: quantize("twn", bits=2, budget="size=0.1x"), "bits, or leave them to a budget"),
        (lambda: quantize("twn", images=0), "images"),
        (lambda: quantize("int8", bits=8), "int8 takes no bits beside it"),
        (lambda: quantize({"twn": 3}), r"options of twn are written \{option: value\}; got 3"),
        (lambda: quantize({"twn": {}, "lsq": {}}), "method is one, with its options; got twn and lsq"),
    ],
)
def test_options_that_cannot_be(make, words):
    with pytest.raises(PlanError, match=words):
        make()


def test_bits_come_last(tmp_path, data):
    with pytest.raises(PlanError, match=r"prune: bits come last"):
        penjing.run(skilled(), data, [quantize("twn"), "prune"], "macs=0.5x")
    made = quantize("twn")(state_of(tiny()), Run(tmp_path))
    for step in (quantize("twn"), prune(budget="macs=0.5x")):
        with pytest.raises(PlanError, match="conv1 is quantized already"):
            step(made, Run(tmp_path))


def test_a_cut_that_rounds_as_well_comes_last_too(tmp_path, data):
    joint = prune(rewrite=["channels", "twn"], allocator="knapsack")
    with pytest.raises(PlanError, match=r"reconstruct: bits come last"):
        penjing.run(skilled(), data, [joint, "reconstruct"], "size=0.5x")


@pytest.mark.parametrize("method", ["twn", "xnor", "binaryconnect", "lsq", "product", "codebook"])
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number_is_named(tmp_path, data, method, number):
    model = tiny()
    with torch.no_grad():
        model.conv1.weight[0, 0, 0, 0] = number
    with pytest.raises(PlanError, match=r"^conv1 cannot be quantized: its weights hold NaN or infinity"):
        quantize(method)(state_of(model, data), Run(tmp_path))


@pytest.mark.parametrize("method", ["xnor", "lsq", "product"])
def test_a_layer_that_reads_no_numbers_is_named(tmp_path, data, method):
    model = tiny()
    with torch.no_grad():
        model.stem.weight.fill_(float("nan"))
    with pytest.raises(PlanError, match=r"^conv1 cannot be quantized: on the training pictures it reads NaN"):
        quantize(method)(state_of(model, data), Run(tmp_path))


def test_a_layer_whose_inputs_have_no_squares_is_named(tmp_path, data):
    model = tiny()
    with torch.no_grad():
        model.bn0.weight.fill_(1e30)
    with pytest.raises(PlanError, match=r"^conv1 cannot be quantized: .* overflow; normalise the pictures"):
        quantize("product")(state_of(model, data), Run(tmp_path))


def test_nothing_to_quantize(tmp_path):
    with pytest.raises(PlanError, match=r"nothing may be quantized: no layer matches include \['x'\]"):
        quantize("twn", include="x")(state_of(tiny()), Run(tmp_path))
    with pytest.raises(PlanError, match="stem is the first or last layer; ends: true"):
        quantize("twn", include="stem")(state_of(tiny()), Run(tmp_path))


@pytest.mark.parametrize("bits", [{}, {"*": 32}, {"conv9": 2}], ids=str)
def test_bits_that_leave_everything_in_floats(tmp_path, bits):
    with pytest.raises(PlanError, match=r"leave every layer in floats \(conv1, conv2\)"):
        quantize("twn", bits=bits)(state_of(tiny()), Run(tmp_path))


def test_a_layer_run_twice_stays_in_floats(tmp_path):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.again, self.last = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x):
            return self.last(self.again(self.again(self.first(x))))

    model = Twice().eval()
    run = Run(tmp_path)
    with pytest.raises(PlanError, match="again is no convolution or linear layer of torch's own that runs once"):
        quantize("twn", include="again")(State(model, model, None, ((torch.randn(2, 8),), {})), run)
    made = quantize("twn", ends=True)(State(model, model, None, ((torch.randn(2, 8),), {})), run)
    assert set(quantized(made.model)) == {"first", "last"}
    assert export()(made, run).files  # whose weights are transposed in the file


def test_int8_is_the_step_of_that_name():
    made, *_ = ordered([{"quantize": {"method": {"int8": {"images": 64}}}}, "export", "check"])
    assert made == int8(images=64)
    with pytest.raises(PlanError, match="int8 rounds the exported file"):
        ordered([quantize("int8"), "train", "export"])


def test_latent_weights_of_signs_do_not_decay(tmp_path):
    made = quantize("binaryconnect")(state_of(tiny()), Run(tmp_path)).model
    decayed, free = (group["params"] for group in make_optimizer(Options(), made, []).param_groups)
    assert any(made.conv1.weight is one for one in free) and any(made.stem.weight is one for one in decayed)


@pytest.mark.parametrize("method", methods())
def test_a_finished_network_of_each_method_comes_back_as_it_was(tmp_path, data, method):
    made = quantize(method)(state_of(skilled(), data), Run(tmp_path)).model.eval()
    write(tmp_path / "kept", made, finished=True)
    again = unbundled(tmp_path / "kept", tiny, packed=False)
    assert torch.equal(again(X), made(X))
    assert precisions(again) == precisions(made)


def test_batch_norm_sees_what_rounded_layers_write_and_only_once(tmp_path, data):
    state = state_of(skilled(), data)
    stale = quantize("ttq", refresh=0)(state, Run(tmp_path))
    fresh = quantize("ttq")(state, Run(tmp_path))
    again = recalibrate(images=1024)(stale, Run(tmp_path))
    assert not torch.equal(stale.model.bn1.running_var, fresh.model.bn1.running_var)
    assert torch.equal(again.model.bn1.running_var, fresh.model.bn1.running_var)
    assert torch.equal(stale.model.bn1.running_var, state.model.bn1.running_var)
    assert [step.refresh for step in ordered(["quantize", "recalibrate"])[:1]] == [0]
    assert ordered(["quantize", "train"])[0].refresh == 1024
    assert quantize("twn")(state_of(tiny()), Run(tmp_path)), "without data there is nothing to see"


def test_a_plan_leaves_the_bits_of_the_ends_unless_it_is_told_otherwise(tmp_path):
    graph = trace(tiny().eval(), (X,), proof=False)
    changes = {name: build("rewrite", name) for name in ("channels", "lsq")}

    def bits(step):
        return {site.name for site in step.sites(graph, changes) if site.kind == "bits"}

    assert bits(prune(rewrite=("channels", "lsq"))) == {"conv1/bits", "conv2/bits"}
    assert bits(prune(rewrite=("channels", "lsq"), ends=True)) >= {"stem/bits", "linear/bits"}
    alone = trace(nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), (X,), proof=False)
    with pytest.raises(PlanError, match=r"1/bits are of the first or last layer; ends: true"):
        prune(rewrite="lsq").sites(alone, {"lsq": changes["lsq"]})


def test_channels_ranks_and_bits_come_out_of_one_plan(tmp_path, data):
    budget = {"size": "0.35x", "macs": "0.7x"}
    run = Run(tmp_path, budget=budget)
    step = prune(rewrite=("channels", "svd_spatial", "lsq"), allocator={"knapsack": {"trials": 24}})
    made = step(state_of(skilled(), data), run)
    kinds = {entry.rewrite for entry in made.plans[-1]}
    assert {"svd_spatial", "lsq"} <= kinds, kinds
    assert all("error" in line for line in run.noted("sites") if line["kind"] == "svd_spatial")
    assert run.noted("searches")[0]["minimise"] == "divergence"
