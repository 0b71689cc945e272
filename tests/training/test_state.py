import pytest
import torch
from torch import nn

from penjing.core.modes import modes_kept
from penjing.training.state import Snapshot, chance, device_of, placement_kept, tensors_of

from .toys import Normed, built, equal, weights


def test_modes_are_restored_one_by_one_even_after_an_error():
    model = built(Normed)
    model.bn.eval()
    before = [module.training for module in model.modules()]
    with pytest.raises(RuntimeError), modes_kept(model):
        model.train()
        model.conv.eval()
        raise RuntimeError
    assert [module.training for module in model.modules()] == before


def test_placement_gives_layouts_back_and_keeps_new_values():
    model = built(Normed)
    model.register_buffer("table", torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last))
    strides = {name: tensor.stride() for name, tensor in model.state_dict().items()}
    weight = model.conv.weight
    with placement_kept(model):
        model.to(memory_format=torch.channels_last)
        assert model.conv.weight.stride() != strides["conv.weight"]
        with torch.no_grad():
            model.conv.weight += 1
        after = weights(model)
    assert {name: tensor.stride() for name, tensor in model.state_dict().items()} == strides
    assert equal(weights(model), after)
    assert model.conv.weight is weight


def test_tensors_of_lists_each_once_in_order():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model.add_module("again", model[0])
    extra = nn.Parameter(torch.zeros(1))
    tensors = tensors_of(model, [extra, model[0].bias])
    assert [id(t) for t in tensors] == [id(t) for t in (*model.parameters(), *model.buffers(), extra)]


def test_snapshot_goes_back_in_place_to_the_last_take():
    tensor = torch.tensor([1.0, 2.0])
    snapshot = Snapshot([tensor])
    tensor.add_(1)
    snapshot.restore()
    assert tensor.tolist() == [1, 2]
    tensor.mul_(5)
    snapshot.take()
    tensor.zero_()
    snapshot.restore()
    assert tensor.tolist() == [5, 10]


def test_chance_repeats_by_name_and_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    draws = []
    for name in ("a", "a", "b"):
        with chance(3, name, torch.device("cpu")):
            draws.append(torch.rand(4))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_device_of_a_model_without_tensors_is_the_cpu():
    assert device_of(nn.ReLU()) == torch.device("cpu")
