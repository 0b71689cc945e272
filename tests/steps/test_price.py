"""Prices upon a target: what its model tells, what its file holds of measurements, and what it does not tell."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from penjing import targets
from penjing.core.errors import BudgetError, Infeasible
from penjing.core.plan import Plan
from penjing.costs.fit import fit
from penjing.costs.probe import Shape
from penjing.exporting.measure import cpu_name
from penjing.graph import surgery
from penjing.graph.trace import trace
from penjing.steps import price
from penjing.steps.price import Pricer, asked, timed
from penjing.steps.prune import prune
from penjing.steps.state import Run, State
from penjing.targets.runtime import Runtime
from tiny import tiny


@pytest.fixture
def state():
    model = tiny().eval()
    return State(model, model, None, ((torch.randn(2, 3, 8, 8),), {}))


def shapes():
    """Layers of the three kinds that the tiny network has, at several widths."""
    sides = {"kernel": (3, 3), "stride": (1, 1), "dilation": (1, 1), "in_size": (8, 8), "out_size": (8, 8)}
    for width in range(4, 68, 8):
        yield Shape(3, width, 1, **sides)
        yield Shape(width, 32, 1, **sides)
        yield Shape(width, 3)


def measured(cpu: str) -> Runtime:
    """A target whose file says that a layer takes a microsecond a thousand MACs."""
    times = {shape: shape.macs / 1e6 for shape in shapes()}
    version = price.build("runtime", "onnxruntime").version()
    table = {**fit(times).to_dict(), "version": version, "cpu": cpu}
    return Runtime("box", "onnxruntime", table=table)


def test_what_a_model_of_the_hardware_tells_prices_a_plan(state, tmp_path):
    run = Run(tmp_path, {"energy": "0.5x", "flash": "10kB", "macs": "0.9x"}, target=targets.find("mcu_m7"))
    graph = trace(state.model, *state.example)
    pricer = Pricer(graph, state, run)
    whole, half = pricer(Plan()), pricer(Plan.of("channels", {"conv1": np.arange(16)}, graph.sites))
    assert whole["flash"] == pricer.original.cost("flash") and half["energy"] < whole["energy"]
    assert pricer.measure(state.model) == {} and not pricer.is_timed


def test_times_of_a_targets_file_are_believed(state, tmp_path, monkeypatch):
    monkeypatch.setattr(price, "time_shape", lambda *given: pytest.fail("a layer was timed"))
    run = Run(tmp_path, target=measured(cpu_name()))
    shape = Shape(12, 32, 1, (3, 3), (1, 1), (1, 1), False, (8, 8), (8, 8))
    assert timed(run, shape, 1) == pytest.approx(shape.macs / 1e6)
    wider = Shape(22, 30, 1, (3, 3), (1, 1), (1, 1), False, (8, 8), (8, 8))
    assert timed(run, wider, 1) == pytest.approx(wider.macs / 1e6, rel=0.3)


def test_layers_are_timed_as_the_run_measures_latency(state, tmp_path, monkeypatch):
    asked_for = []
    monkeypatch.setattr(price, "time_shape", lambda *given: asked_for.append(given[1:]) or 1.0)
    box = Runtime("box", "onnxruntime", threads=2, batch=4, precision="bf16")
    timed(Run(tmp_path, threads=2, batch=4, target=box), next(shapes()), 4)
    timed(Run(tmp_path, target=Runtime("torch", "torch_compile")), next(shapes()), 1)
    assert asked_for == [(2, 4, "onnxruntime", "bf16"), (1, 1, "onnxruntime", "fp32")]


def test_runs_correct_what_a_plan_is_predicted_to_take(state, tmp_path):
    """Five networks that took twice their layers' time, and half a millisecond more each."""
    sizes = (1.0, 2.0, 3.0, 5.0, 8.0)
    networks = {
        f"n{size}": {"measured": 2 * size + 0.5, "median": 2 * size + 0.6, "values": 0, "predicted": {"conv": size},
                     "layers": {"conv": 2 * size}}
        for size in sizes
    }  # fmt: skip
    run = {"run": "a", "name": "net", "date": "2026", "machine": "some", "networks": networks}
    box = measured(cpu_name())
    box = replace(box, table={**box.table, "runs": [run]})
    shape = Shape(12, 32, 1, (3, 3), (1, 1), (1, 1), False, (8, 8), (8, 8))
    assert timed(Run(tmp_path, target=box), shape, 1) == pytest.approx(2 * shape.macs / 1e6, rel=0.01)
    here = Run(tmp_path, {"latency": "0.5x"}, target=replace(box, step=4))
    here.made["original"] = SimpleNamespace(cost=lambda name: 4.0, timing=4.0)
    pricer = Pricer(trace(state.model, *state.example), state, here)
    assert pricer.table.overhead == pytest.approx(0.5, rel=0.01)
    assert pricer(Plan())["latency"] == pytest.approx(4.0)


def test_times_of_another_machine_are_taken_with_a_word(state, tmp_path, capsys):
    timed(Run(tmp_path, target=measured("a far processor")), next(shapes()), 1)
    said = capsys.readouterr().err
    assert "a far processor" in said and cpu_name() in said and "penjing target measure" in said


def test_a_cost_that_the_target_does_not_tell_is_refused_by_name():
    with pytest.raises(BudgetError, match="energy is nothing that the target onnxruntime tells, which is latency"):
        asked("energy=0.5x", targets.default())
    assert asked("energy=0.5x", targets.find("eyeriss_v1"))["energy"].value == 0.5


def test_what_cannot_be_reached_names_the_layer_that_holds_it_back(state, tmp_path):
    run = Run(tmp_path, {"energy": "1nJ"}, target=targets.find("gemmini_default"))
    with pytest.raises(Infeasible, match=r"lowest reachable [\d.]+ \w+ \(.*, and \S+ alone takes"):
        prune(criterion="l1").decide(state, run)


def cut_in_half(state):
    model = tiny().eval()
    graph = trace(model, *state.example)
    surgery.cut(model, graph, {"conv1": np.arange(16)})
    return state.with_model(model, Plan.of("channels", {"conv1": np.arange(16)}, graph.sites))


def test_after_a_cut_the_original_still_takes_what_it_was_measured_to(state, tmp_path):
    run = Run(tmp_path, {"latency": "0.5x"}, target=replace(measured(cpu_name()), step=4))
    run.made["original"] = SimpleNamespace(cost=lambda name: 4.0, timing=4.0)
    small = cut_in_half(state)
    assert Pricer(trace(state.model, *state.example), state, run)(Plan())["latency"] == pytest.approx(4.0)
    assert Pricer(trace(small.model, *small.example), small, run)(Plan())["latency"] < 3.0


def test_a_part_of_the_way_goes_from_the_network_as_it_is(state, tmp_path):
    run = Run(tmp_path, {"macs": "0.2x", "params": "0.9x"})
    small = cut_in_half(state)
    pricer = Pricer(trace(small.model, *small.example), small, run)
    now, (macs, params) = pricer(Plan()), pricer.bounds
    pricer.approach(0.25)
    assert pricer.bounds[0].limit == pytest.approx(0.75 * now["macs"] + 0.25 * macs.limit)
    assert now["params"] < params.limit == pricer.bounds[1].limit
    assert pricer.bounds[0].asked == "0.25 of the way to 0.2x"
