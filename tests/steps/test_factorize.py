"""Layers factorised by rules and under budgets, ranks pruned like channels (PRF), and chains merged again."""

import json

import pytest
import torch
from torch import nn

import penjing
from penjing.core.errors import PlanError, RecipeError
from penjing.data import load
from penjing.exporting.bundle import load as unbundled
from penjing.exporting.bundle import sealed, write
from penjing.graph.chains import chains_of
from penjing.graph.trace import trace
from penjing.steps.factorize import factorize
from penjing.steps.gal import gal
from penjing.steps.merge import merge
from penjing.steps.prune import prune
from penjing.steps.rbp import rbp
from penjing.steps.reconstruct import reconstruct
from penjing.steps.ssl import ssl
from penjing.steps.state import Run, State
from tiny import pictures, skilled, tiny

X = torch.randn(4, 3, 8, 8)


@pytest.fixture(scope="module")
def learned():
    return skilled()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return load(pictures(tmp_path_factory.mktemp("pictures")), seed=0)


def state_of(model, data=None):
    model = model.eval()
    return State(model, model, data, ((X,), {}))


def costs(model):
    return sum(layer.macs for layer in trace(model, (X,), proof=False).layers)


@pytest.mark.parametrize(
    ("ranks", "found"),
    [
        (4, {"conv1": 4, "conv2": 4}),
        ({"share": 0.25}, {"conv1": 8, "conv2": 4}),
        ({"ratio": 4}, {"conv1": 6, "conv2": 3}),
    ],
    ids=str,
)
def test_a_rule_gives_the_ranks_of_each_layer(tmp_path, ranks, found):
    run = Run(tmp_path)
    made = factorize(ranks=ranks, include=("conv*",))(state_of(tiny()), run)
    assert {name: specs[0].out_channels for name, specs in chains_of(made.model).items()} == found
    (certificate,) = run.noted("certificates")
    assert certificate["ok"] and certificate["name"] == "chains equal their products"
    assert {line["site"]: line["after"] for line in run.noted("sites") if line["kind"] == "svd"} == {
        f"{name}/rank": rank for name, rank in found.items()
    }
    assert costs(made.model) < costs(tiny())


def test_the_fewest_ranks_keep_a_share_of_the_squared_weights(tmp_path):
    model = tiny()
    squares = torch.linalg.svdvals(model.conv1.weight.detach().flatten(1)).square()
    rank = factorize(ranks={"energy": 0.5}, include=("conv1",))(state_of(model), Run(tmp_path)).model.conv1.first
    assert squares[: rank.out_channels].sum() >= 0.5 * squares.sum() > squares[: rank.out_channels - 1].sum()


def test_ranks_are_rounded_up_to_a_multiple(tmp_path):
    made = factorize(ranks={"share": 0.1}, step=4, include=("conv1",))(state_of(tiny()), Run(tmp_path))
    assert made.model.conv1.first.out_channels == 4


def test_evbmf_finds_the_rank_beside_noise(tmp_path):
    model = tiny()
    with torch.no_grad():
        signal = torch.randn(32, 3) @ torch.randn(3, 144)
        model.conv1.weight.copy_((signal + 0.05 * torch.randn(32, 144)).view(32, 16, 3, 3))
    made = factorize(ranks="evbmf", include=("conv1",))(state_of(model), Run(tmp_path))
    assert made.model.conv1.first.out_channels == 3


def test_what_does_not_pay_stays_whole_and_is_noted(tmp_path):
    run = Run(tmp_path)
    made = factorize(ranks={"share": 0.95}, include=("conv1",))(state_of(tiny()), run)
    assert not chains_of(made.model)
    assert [note["where"] for note in run.noted("pinned")] == ["conv1"]
    assert "at rank 30 svd saves nothing" in run.noted("pinned")[0]["why"]


def test_full_ranks_change_nothing_and_are_sites_that_any_criterion_scores(tmp_path):
    """PRF: the widths between blocks stay, and pruning finds the rank that is there."""
    model = tiny().eval()
    with torch.no_grad():
        model.conv1.weight.copy_((torch.randn(32, 3) @ torch.randn(3, 144)).view(32, 16, 3, 3))
    before, run = model(X), Run(tmp_path, {"macs": "0.9x"})
    full = factorize(ranks="full", include=("conv1",))(state_of(model), run)
    assert torch.allclose(full.model(X), before, atol=1e-5) and full.model.conv1.first.out_channels == 32
    made = prune(criterion="l2", include=("rank:*",), step=1)(full, run)
    assert {entry.site for plan in made.plans for entry in plan} == {"conv1.first"}
    assert made.model.conv2.in_channels == 32 and 3 <= made.model.conv1.first.out_channels < 32
    assert torch.allclose(made.model(X), before, atol=1e-4)


def test_criteria_agree_on_the_true_rank(tmp_path):
    model = tiny().eval()
    with torch.no_grad():
        model.conv1.weight.copy_((torch.randn(32, 3) @ torch.randn(3, 144)).view(32, 16, 3, 3))
    full = factorize(ranks="full", include=("conv1",))(state_of(model), Run(tmp_path))
    for criterion in ("l1", "l2", "lamp"):
        made = prune(criterion=criterion, allocator={"threshold": {"k": 1e-4}}, include=("rank:*",), step=1)
        assert made(full, Run(tmp_path)).model.conv1.first.out_channels == 3


@pytest.mark.parametrize(
    "step",
    [gal(epochs=1, batch=16, images=64, include=("rank:*",)),
     rbp(epochs=0.1, batch=16, images=64, include=("rank:*",)),
     ssl(epochs=1, batch=16, images=64, include=("rank:*",))],
    ids=lambda step: type(step).__name__,
)  # fmt: skip
def test_ranks_are_learned_like_channels_and_what_does_not_pay_is_a_layer_again(data, learned, tmp_path, step):
    """A chain of full rank costs what its layer costs: no rank need go that the budget does not ask for."""
    full = factorize(ranks="full", include=("conv1", "conv2"))(state_of(learned, data), Run(tmp_path))
    assert costs(full.model) > costs(tiny())
    run = Run(tmp_path, {"macs": "0.8x"})
    made = step(full, run)
    assert 0.3 * costs(tiny()) < costs(made.model) <= 0.8 * costs(tiny())
    for path, specs in chains_of(made.model).items():
        assert sum(spec.weights for spec in specs) < learned.get_submodule(path).weight.numel()
    assert all(c["ok"] for c in run.noted("certificates")) and torch.isfinite(made.model.eval()(X)).all()
    assert {entry.site for plan in made.plans for entry in plan} <= {"conv1.first", "conv2.first"}


def test_chains_that_do_not_pay_are_merged_and_others_stay(tmp_path):
    full = factorize(ranks="full", include=("conv1",))(state_of(tiny()), Run(tmp_path))
    small = factorize(ranks=4, include=("conv2",))(full, Run(tmp_path))
    run = Run(tmp_path)
    made = merge()(small, run)
    assert set(chains_of(made.model)) == {"conv2"} and type(made.model.conv1) is nn.Conv2d
    assert torch.allclose(made.model(X), small.model(X), atol=1e-5) and run.noted("certificates")[0]["ok"]
    assert not chains_of(merge(every=True)(small, Run(tmp_path)).model)
    assert set(chains_of(merge(include=("conv2",))(small, Run(tmp_path)).model)) == {"conv1", "conv2"}


def test_a_bounded_cost_decides_what_pays(tmp_path):
    """A spatial chain of rank 16 saves MACs of a layer, and writes more in between than the layer."""
    chain = factorize(rewrite="svd_spatial", ranks=12, include=("conv1",))(state_of(tiny()), Run(tmp_path))
    assert set(chains_of(merge()(chain, Run(tmp_path, {"macs": "0.9x"})).model)) == {"conv1"}


@pytest.mark.parametrize("rewrite", ["svd", "svd_spatial", "tucker2"])
def test_a_budget_decides_ranks_and_the_line_goes_on_to_the_file(data, learned, tmp_path, rewrite):
    steps = [factorize(rewrite=rewrite), reconstruct(images=64), "recalibrate", "export", "check"]
    result = penjing.run(learned, data, steps, "macs=0.5x", folder=tmp_path)
    original, small = result.results["rows"]
    assert small["macs"] <= 0.5 * original["macs"] and small["accuracy"] >= 0.9 * original["accuracy"]
    names = [certificate["name"] for certificate in result.results["certificates"]]
    assert names == ["chains equal their products", "torch equals ONNX"]
    assert all(certificate["ok"] for certificate in result.results["certificates"])
    again = penjing.load(tmp_path, builder=tiny)
    assert torch.equal(again(X), result.model.eval()(X))


def test_one_plan_of_channels_and_ranks(learned, tmp_path):
    run = Run(tmp_path, {"macs": "0.3x"})
    steps = prune(criterion="l1", rewrite=("channels", "svd"), allocator={"knapsack": {"loss": "scores"}}, step=1)
    made = steps(state_of(learned), run)
    assert costs(made.model) <= 0.3 * costs(tiny())
    assert [c["ok"] for c in run.noted("certificates")] == [True]


def test_the_last_factor_is_refitted_to_what_it_reads(data, learned, tmp_path):
    @torch.no_grad()
    def error(state):
        return sum(float((state.model(x) - learned(x)).square().mean()) for x in data.calibration(96, 0, size=48))

    chain = factorize(ranks=3, include=("conv1", "conv2"))(state_of(learned, data), Run(tmp_path))
    again = reconstruct(images=96)(chain, Run(tmp_path))
    assert error(again) < 0.5 * error(chain)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.depthwise = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, groups=3)

    def forward(self, x):
        return self.depthwise(self.conv(self.conv(x).relu()).relu()).mean((2, 3))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ranks": 0}, "a rank is a whole number, 1 or more; got 0"),
        ({"ranks": 500, "include": ("conv1",)}, "rank 500 is above the full rank of every layer; conv1 has 32"),
        ({"ranks": {"energy": 1.5}}, "ranks by energy take a number above 0 and at most 1; got 1.5"),
        ({"ranks": {"ratio": 1}}, "ranks by ratio take a number above 1; got 1"),
        ({"ranks": "most"}, "ranks are a number, full, evbmf, or one of energy"),
        ({"ranks": True}, "ranks are a number, full, evbmf, or one of energy"),
        ({"rewrite": "svd_spatal", "ranks": 2}, "'svd_spatal' is no factorisation. Did you mean 'svd_spatial'"),
        ({"rewrite": "channels", "ranks": 2}, "'channels' is no factorisation"),
        ({"ranks": 2, "allocator": "greedy"}, "allocator is for ranks that a budget decides"),
        ({"ranks": 2, "include": ("conv9",)}, "Nothing may be factorised by svd: no layer matches include"),
        ({"ranks": "full", "rewrite": "monochromatic", "include": ("stem",)}, "monochromatic only comes near a layer"),
        ({"ranks": 2, "step": 0}, "step must be a whole number, 1 or more; got 0"),
    ],
    ids=str,
)
def test_what_cannot_be_is_said_in_a_sentence(tmp_path, options, said):
    with pytest.raises(PlanError) as caught:
        factorize(**options)(state_of(tiny()), Run(tmp_path))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("include", "said"),
    [
        ("conv", "conv runs more than once"),
        ("depthwise", "depthwise is depthwise: each filter reads one channel"),
    ],
)
def test_a_layer_that_cannot_be_factorised_says_why(tmp_path, include, said):
    with pytest.raises(PlanError, match="Nothing may be factorised by svd") as caught:
        factorize(ranks=2, include=(include,))(state_of(Twice()), Run(tmp_path))
    assert said in str(caught.value)


def test_weights_that_are_not_finite_are_named(tmp_path):
    model = tiny()
    with torch.no_grad():
        model.conv1.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(PlanError, match=r"conv1 holds 1 weights that are not finite"):
        factorize(ranks=2, include=("conv1",))(state_of(model), Run(tmp_path))


def test_a_network_without_chains_has_nothing_to_merge(tmp_path):
    state = state_of(tiny())
    assert torch.equal(merge()(state, Run(tmp_path)).model(X), state.model(X))
    with pytest.raises(PlanError, match=r"no chain .* that matches \['conv1'\]"):
        merge(include=("conv1",))(state, Run(tmp_path))


@pytest.mark.parametrize("rewrites", [("svd", "tucker2"), ("svd", "weights")])
def test_plans_that_would_undo_each_other_are_refused(rewrites):
    with pytest.raises(PlanError, match=r"factorises by one rewrite|keeps no zeros"):
        prune(rewrite=rewrites)


def test_a_recipe_names_the_option_that_is_wrong():
    with pytest.raises(RecipeError, match="factorize"):
        penjing.run(tiny(), None, [{"factorize": {"rank": 3}}], example=X)


def test_a_bundle_with_a_wrong_chain_is_refused_by_name(tmp_path):
    made = factorize(ranks=4, include=("conv1",))(state_of(tiny()), Run(tmp_path))
    place = write(tmp_path / "b", made.model)
    manifest = place / "manifest.json"
    manifest.write_bytes(sealed(json.loads(manifest.read_text().replace('"kind": "conv"', '"kind": "pickle"'))))
    with pytest.raises(penjing.core.errors.BundleError, match="The chain conv1 has a stage that is no shape"):
        unbundled(place, tiny)


def test_a_random_twin_keeps_the_ranks_and_draws_the_channels(learned, data, tmp_path):
    steps = [factorize(include=("conv1",), step=1), prune(criterion="l1", budget={"macs": "0.6x"}), "recalibrate"]
    result = penjing.run(learned, data, steps, "macs=0.8x", references=("random",), folder=tmp_path)
    ours, twin = result.results["rows"][1:]
    assert (ours["macs"], ours["params"]) == (twin["macs"], twin["params"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_chains_of_any_precision_are_proved(tmp_path, dtype):
    """Products rounded to half precision are not what the chains compute."""
    model, run = tiny().to(dtype).eval(), Run(tmp_path)
    made = factorize(ranks=4, include=("conv*",))(State(model, model, None, ((X.to(dtype),), {})), run)
    assert run.noted("certificates")[0]["ok"] and made.model.conv1.first.weight.dtype is dtype


def test_a_network_in_a_wrapper_of_devices_is_what_it_wraps(tmp_path):
    steps = [factorize(ranks=4, include=("conv1",)), "export"]
    result = penjing.run(nn.DataParallel(tiny()), None, steps, example=X, folder=tmp_path)
    assert set(chains_of(result.model)) == {"conv1"}
    assert torch.equal(penjing.load(tmp_path, builder=lambda: nn.DataParallel(tiny()))(X), result.model.eval()(X))


class Strange(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.tied, self.other = nn.ConvTranspose2d(3, 8, 2), nn.Linear(8, 8), nn.Linear(8, 8)
        self.tied.weight = self.other.weight

    def forward(self, x):
        return self.other(self.tied(self.up(x).mean((2, 3))).relu())


@pytest.mark.parametrize(
    ("include", "said"),
    [
        ("up", "up is a ConvTranspose2d, and factorisations take torch's own Conv2d and Linear"),
        ("tied", "tied runs more than once"),
    ],
)
def test_a_layer_that_no_chain_may_replace_says_why(tmp_path, include, said):
    with pytest.raises(PlanError) as caught:
        factorize(ranks=2, include=(include,))(state_of(Strange()), Run(tmp_path))
    assert said in str(caught.value)


def test_the_error_of_each_layer_stands_beside_its_ranks(tmp_path):
    model, run = tiny(), Run(tmp_path)
    factorize(ranks=3, include=("conv1",))(state_of(model), run)
    values = torch.linalg.svdvals(model.conv1.weight.detach().double().flatten(1)).square()
    (line,) = (line for line in run.noted("sites") if line["site"] == "conv1/rank")
    assert line["error"] == pytest.approx(float((values[3:].sum() / values.sum()).sqrt()), rel=1e-4)
    chosen = Run(tmp_path, {"macs": "0.4x"})
    prune(rewrite="svd", allocator={"knapsack": {"loss": "scores"}}, step=1)(state_of(tiny()), chosen)
    assert {line["site"] for line in chosen.noted("sites") if 0 < line.get("error", 0) < 1} >= {"conv1/rank"}


@pytest.mark.parametrize(
    "step", [{"factorize": {"ranks": 4, "include": ["conv*"]}}, {"factorize": {"step": 1}}], ids=["rule", "budget"]
)
def test_what_factorize_would_do_can_be_seen_before(step):
    seen = penjing.preview(tiny(), None, [step, "export"], "macs=0.6x", example=X)
    costs = {row["cost"]: row for row in seen.facts["costs"]}
    assert costs["macs"]["predicted"] < 0.6 * costs["macs"]["original"] and {e.rewrite for e in seen.plan} == {"svd"}
    assert "Proof holds: chains equal their products" in str(seen) or step["factorize"].get("step")


class Between(nn.Module):
    """Layers that one Sequential holds, between which the forward does something."""

    def __init__(self):
        super().__init__()
        self.pair, self.head = nn.Sequential(nn.Conv2d(3, 12, 1), nn.Conv2d(12, 3, 1)), nn.Conv2d(3, 4, 1)

    def forward(self, x):
        for layer in self.pair:
            x = layer(x).tanh()
        return self.head(x).mean((2, 3))


def test_layers_with_something_between_them_are_no_chain_to_merge(tmp_path):
    run = Run(tmp_path)
    made = merge(every=True)(state_of(Between()), run)
    assert type(made.model.pair) is nn.Sequential and not run.noted("certificates")
