"""Light blocks as options of one choice: what is offered, what it loses, and what the solver makes of it."""

import copy
import itertools

import numpy as np
import pytest
import torch
from torch import nn

from penjing.allocators.knapsack import knapsack
from penjing.allocators.problem import Problem
from penjing.core.errors import PlanError
from penjing.core.plan import Plan
from penjing.core.registry import build
from penjing.core.search import Bound
from penjing.costs.probe import Shape
from penjing.costs.table import moves
from penjing.graph.chains import prove_chains, stand_in, written
from penjing.graph.draft import Draft
from penjing.graph.trace import trace
from penjing.rewrites.lighten import LIGHT, lighten
from tiny import tiny

X = torch.randn(2, 3, 8, 8)
PICTURES = [torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(2)]


@pytest.fixture(scope="module")
def seen():
    model = tiny().eval()
    graph, change = trace(model, (X,)), lighten().on(PICTURES)
    return model, graph, change, change.find(graph)


def applied(seen, kept):
    model, graph, change, _ = seen
    small = copy.deepcopy(model)
    change.apply(small, graph, kept)
    return small


def options_of(seen, name):
    _, graph, change, _ = seen
    return change.every(graph, next(layer for layer in graph.layers if layer.name == name))


def test_options_are_cheaper_than_the_layer_and_stand_by_cost(seen):
    _model, graph, _, sites = seen
    assert [site.name for site in sites] == ["stem/option", "conv1/option", "conv2/option", "linear/option"]
    for site, layer in zip(sites, graph.layers, strict=True):
        found = options_of(seen, layer.name)
        assert site.size == len(found) + 1 and site.most == len(found)
        assert all(a.macs <= b.macs < layer.macs for a, b in itertools.pairwise(found))
    assert {option.family for option in options_of(seen, "conv1")} >= set(LIGHT)


def test_an_option_of_every_family_is_what_its_draft_foretells_and_is_proved(seen):
    model, graph, _change, sites = seen
    site, families = sites[1], [one.family for one in options_of(seen, "conv1")]
    for n in sorted({families.index(family) + 1 for family in families}):
        kept = {site.name: np.arange(n)}
        small = applied(seen, kept)
        draft = Draft(graph, Plan.of("lighten", kept, sites), lambda: small)  # noqa: B023
        again = Draft(trace(small, (X,), proof=False), Plan(), lambda: small)  # noqa: B023
        assert [(x.name, x.macs) for x in again.layers] == [(x.name, x.macs) for x in draft.layers]
        moved = [(p.operator, p.in_elements, p.out_elements) for p in draft.passes if p.name.startswith("conv1.")]
        told = [(p.operator, p.in_elements, p.out_elements) for p in again.passes if p.name.startswith("conv1.")]
        assert moved == told
        macs = sum(x.macs for x in again.layers if x.name.startswith("conv1."))
        assert options_of(seen, "conv1")[n - 1].macs == macs
        assert prove_chains(graph, small, model).ok


def test_a_draft_has_the_shapes_by_which_a_runtime_times_what_chains_move(seen):
    _, graph, _change, sites = seen
    whole = next(layer for layer in graph.layers if layer.name == "conv1")
    found = options_of(seen, "conv1")
    for family in ("grouped_shuffle", "shift", "depthwise_separable"):
        n = next(i for i, one in enumerate(found) if one.family == family)
        draft = Draft(graph, Plan.of("lighten", {sites[1].name: np.arange(n + 1)}, sites), lambda: None)
        shapes = {one.name.removeprefix("conv1."): Shape.of(one) for one in moves(draft)}
        rank, chain = found[n].ranks[0], [one for one in draft.layers if one.name.startswith("conv1.")]
        wide, sizes = rank * (4 if family == "grouped_shuffle" else whole.in_channels), (whole.in_size, whole.out_size)
        assert [one.inner for one in chain] == [True] * (len(chain) - 1) + [False]
        if family == "grouped_shuffle":
            size = whole.out_size
            assert shapes == {"shuffle": Shape(wide, wide, in_size=size, out_size=size, picks=True)}
        elif family == "shift":
            order = Shape(whole.in_channels, wide, in_size=sizes[0], out_size=sizes[0], picks=True)
            shift = Shape(wide, wide, wide, whole.kernel, whole.stride, whole.dilation, False, *sizes)
            assert shapes == {"order": order, "shift": shift}
        else:
            assert not shapes


def test_a_fit_to_pictures_is_nearer_on_them_than_weights_alone(seen):
    model, graph, _change, _sites = seen
    x, plain = torch.cat(PICTURES), lighten()
    with torch.no_grad():
        wanted = model(x)
        for family in LIGHT:
            options = options_of(seen, "conv1")
            kept = {"conv1/option": np.array([next(i for i, one in enumerate(options) if one.family == family)])}
            bare = copy.deepcopy(model)
            plain.apply(bare, graph, kept)
            near, far = ((small(x) - wanted).square().sum() for small in (applied(seen, kept), bare))
            assert near < far


def test_scores_add_up_to_the_movement_of_the_answers(seen):
    model, _graph, change, sites = seen
    site = sites[2]
    scores = change.scores(model, site).numpy()
    for n in (1, 5, site.most):
        lost = change.losses(model, {"conv2": [n - 1]})["conv2"][n - 1]
        assert scores[n:].sum() == pytest.approx(lost.answers, abs=1e-12) and 0 <= lost.error <= 1
    # What is foretold to first order, of all positions alike, is what one sees, within a small factor.
    with torch.no_grad():
        x = torch.cat(PICTURES)
        ratios = []
        for i in range(0, site.most, 6):
            small = applied(seen, {site.name: np.array([i])})
            moved = float((small(x) - model(x)).square().sum(1).mean())
            ratios.append(change.losses(model, {"conv2": [i]})["conv2"][i].answers / moved)
    assert 1 / 8 < np.exp(np.mean(np.log(ratios))) < 8


def test_the_knapsack_over_menus_is_what_brute_force_finds(seen):
    model, graph, change, sites = seen
    menus = [sites[1], sites[2]]
    scores = {site.name: change.scores(model, site).numpy() for site in menus}

    def price(plan):
        return {"macs": float(sum(x.macs for x in Draft(graph, plan, lambda: model).layers))}

    whole = price(Plan())["macs"]
    for share in (0.4,):
        problem = Problem("lighten", menus, scores, [Bound("macs", share * whole, f"{share}x")], price)
        plans = [problem.keep({a.name: n, b.name: m}) for a, b in [menus]
                 for n in range(1, a.size + 1) for m in range(1, b.size + 1)]  # fmt: skip
        best = min(problem.lost(plan) for plan in plans if problem.fits(plan))  # 1,360 plans
        search = knapsack(loss="scores")(problem)
        with pytest.raises(StopIteration) as done:
            next(search)
        assert problem.fits(done.value.value)
        assert problem.lost(done.value.value) == pytest.approx(best, rel=2e-3)


def test_a_menu_says_itself_which_options_it_has_and_in_which_order(seen):
    _, graph, change, _ = seen
    every = options_of(seen, "conv1")
    kept = {"conv1/option-7-2-9": np.arange(2)}
    assert change.chosen(graph, kept) == {"conv1": every[2]}
    assert change.chosen(graph, {"conv1/option-7-2-9": np.array([0, 3])}) == {}, "the layer as it is"
    with pytest.raises(PlanError, match="is no menu of options"):
        change.chosen(graph, {"conv1/rank": np.arange(2)})


def test_a_layer_that_lost_channels_becomes_the_same_block_in_proportion(seen):
    model, graph, change, _ = seen
    option = next(i for i, one in enumerate(options_of(seen, "conv2")) if one.family == "fire" and one.ranks == (8,))
    small = copy.deepcopy(model)
    build("rewrite", "channels").apply(small, graph, {"conv1": np.arange(0, 32, 2)})
    change.apply(small, graph, {"conv2/option": np.array([option])})
    assert small.conv2.squeeze.weight.shape == (4, 16, 1, 1)


def test_a_search_remembers_the_first_network_and_the_last_other_alone():
    change, model = lighten().on(PICTURES), tiny().eval()
    graph, first = trace(model, (X,)), None
    site = change.find(graph)[1]
    for factor in (1.0, 1.1, 1.2, 1.3):
        other = copy.deepcopy(model)
        with torch.no_grad():
            other.stem.weight.mul_(factor)
        change.apply(other, graph, {site.name: np.arange(1)})
        marks = {what: list(change._seen[what]) for what in ("made", "readings")}
        first = first or marks["made"][0]
        assert marks["made"] == marks["readings"] and marks["made"][0] == first and len(marks["made"]) <= 2


def test_shapes_and_shifts_are_made_again_from_plain_data(seen):
    kept = {name: np.array([next(i for i, one in enumerate(options_of(seen, name.split("/")[0]))
                                 if one.family == family)])
            for name, family in {"conv1/option": "shift", "conv2/option": "fire"}.items()}  # fmt: skip
    small, again = applied(seen, kept).eval(), tiny().eval()
    stand_in(again, written(small))
    again = again.to_empty(device="cpu")
    again.load_state_dict(small.state_dict())
    assert again.conv1.shift.counts == small.conv1.shift.counts
    assert torch.equal(again(X), small(X))


def test_channels_are_cut_through_a_shift(seen):
    """What goes by each tap is a number that the shift holds, and so a cut sets it."""
    first = next(i for i, one in enumerate(options_of(seen, "conv2")) if one.family == "shift")
    small = applied(seen, {"conv2/option": np.array([first])})
    graph = trace(small, (X,))
    site = graph.site("conv1")
    assert not any(note.where.startswith("conv2") for note in graph.notes)
    build("rewrite", "channels").apply(small, graph, {site.name: np.arange(0, site.size, 2)})
    assert small(X).shape == (2, 5) or small(X).shape[0] == 2
    assert sum(small.conv2.shift.counts) == len(small.conv2.order.index) < 32


def test_a_linear_layer_over_positions_and_one_that_runs_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.mix = nn.Conv2d(3, 16, 3, padding=1), nn.Linear(16, 16)
            self.again = nn.Conv2d(16, 16, 3, padding=1)

        def forward(self, x):
            x = self.again(self.again(self.conv(x)).relu()).relu()
            return self.mix(x.permute(0, 2, 3, 1)).mean((1, 2))

    model = Twice().eval()
    graph, change = trace(model, (X,), proof=False), lighten().on(PICTURES)
    sites = change.find(graph)
    assert [site.name for site in sites] == ["conv/option", "mix/option"]
    change.scores(model, sites[1])
    small = copy.deepcopy(model)
    change.apply(small, graph, {site.name: np.arange(1) for site in sites})
    assert prove_chains(graph, small, model).ok
