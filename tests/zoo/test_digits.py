import pytest
import torch
from safetensors.torch import save_file

from penjing import zoo
from penjing.core.errors import RecipeError
from penjing.zoo import digits


def test_its_size_leaves_room_in_the_package_and_work_for_a_latency_budget(macs):
    with torch.device("meta"):
        model, x = zoo.digits_net(), torch.empty(1, 1, 8, 8)
    params = sum(p.numel() for p in model.parameters())
    # Convolutions 1-64, 64-128 and five 128-128, two numbers a channel for batch norm, and the linear.
    assert params == 9 * (64 + 64 * 128 + 5 * 128 * 128) + 2 * (64 + 6 * 128) + 128 * 10 + 10
    assert 4 * params < 3.5e6
    assert macs(model, x) == 64 * 9 * (64 + 64 * 128 + 5 * 128 * 128) + 1280
    assert 45e6 < macs(model, x) < 60e6


def test_widths_are_multiples_of_16():
    with torch.device("meta"):
        widths = [layer.out_channels for layer in zoo.digits_net().modules() if isinstance(layer, torch.nn.Conv2d)]
    assert len(widths) == 7
    assert all(width % 16 == 0 for width in widths)


def test_it_trains_on_a_batch():
    torch.manual_seed(0)
    model = zoo.digits_net(num_classes=3)
    y = model(torch.randn(4, 1, 8, 8))
    assert y.shape == (4, 3)
    y.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_pretrained_reads_the_embedded_file(tmp_path, monkeypatch):
    trained = zoo.digits_net()
    save_file(trained.state_dict(), tmp_path / "digits_net.safetensors")
    monkeypatch.setattr(digits, "EMBEDDED", tmp_path / "digits_net.safetensors")
    model = zoo.digits_net(pretrained=True)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), trained.parameters(), strict=True))


def test_an_installation_without_the_file_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(digits, "EMBEDDED", tmp_path / "digits_net.safetensors")
    with pytest.raises(RecipeError, match="absent from this installation"):
        zoo.digits_net(pretrained=True)


def test_the_embedded_weights_have_ten_classes():
    with pytest.raises(RecipeError, match="10 classes, not 5"):
        zoo.digits_net(num_classes=5, pretrained=True)
