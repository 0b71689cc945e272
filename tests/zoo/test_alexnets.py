import torch
from torch import nn

from penjing import zoo
from penjing.graph.trace import trace
from penjing.zoo.initial import he_normal


def test_parameters_and_macs_are_the_published_ones(macs):
    with torch.device("meta"):
        model, x = zoo.alexnet(), torch.empty(1, 3, 227, 227)
    assert sum(p.numel() for p in model.parameters()) == 60_965_224
    convolutions = 55**2 * 96 * 363 + 27**2 * 256 * 1200 + 13**2 * (384 * 2304 + 384 * 1728 + 256 * 1728)
    assert convolutions == 665_784_864
    assert macs(model, x) == convolutions + 9216 * 4096 + 4096 * 4096 + 4096 * 1000


def test_normalisation_is_the_papers():
    with torch.device("meta"):
        norm = zoo.alexnet().norm
    x = torch.rand(1, 8, 1, 1)
    squares = torch.cat([torch.zeros(2), x.flatten() ** 2, torch.zeros(2)]).unfold(0, 5, 1).sum(1)
    torch.testing.assert_close(norm(x).flatten(), x.flatten() / (2 + 1e-4 * squares) ** 0.75)


def test_it_traces_and_what_is_normalised_across_channels_stays_whole():
    with torch.device("meta"):
        model = zoo.alexnet(num_classes=2)
    model.fc6, model.fc7, model.fc8 = nn.Linear(9216, 8), nn.Linear(8, 8), nn.Linear(8, 2)
    he_normal(model.to_empty(device="cpu"))
    graph = trace(model, (torch.rand(2, 3, 227, 227),))
    assert [(layer.name, layer.groups) for layer in graph.layers[:5]] == [
        ("conv1", 1), ("conv2", 2), ("conv3", 1), ("conv4", 2), ("conv5", 2),
    ]  # fmt: skip
    assert sum(layer.macs for layer in graph.layers[:5]) == 665_784_864
    assert {note.where for note in graph.notes} == {"conv1", "conv2"}
    assert {site.name: site.size for site in graph.sites} == {
        "conv3": 192,
        "conv4": 192,
        "conv5": 128,
        "fc6": 8,
        "fc7": 8,
    }


def test_it_trains_on_a_batch():
    torch.manual_seed(0)
    model = zoo.alexnet(num_classes=3)
    y = model(torch.randn(2, 3, 227, 227))
    assert y.shape == (2, 3)
    y.square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())
