import torch
import torch.nn.functional as F

from penjing import zoo


def test_parameters_and_macs_are_the_published_ones(macs):
    with torch.device("meta"):
        model, x = zoo.nin_cifar(), torch.empty(1, *zoo.picture("nin_cifar"))
        assert macs(model, x) == 222_486_528
    assert sum(p.numel() for p in model.parameters()) == 966_986


def test_layers_and_starting_weights_are_those_of_the_released_configuration():
    torch.manual_seed(0)
    model = zoo.nin_cifar(num_classes=100)
    shapes = {name: tuple(conv.weight.shape) for name, conv in model.named_children() if name != "drop"}
    assert shapes == {
        "conv1": (192, 3, 5, 5), "cccp1": (160, 192, 1, 1), "cccp2": (96, 160, 1, 1), "conv2": (192, 96, 5, 5),
        "cccp3": (192, 192, 1, 1), "cccp4": (192, 192, 1, 1), "conv3": (192, 192, 3, 3), "cccp5": (192, 192, 1, 1),
        "cccp6": (100, 192, 1, 1),
    }  # fmt: skip
    assert abs(model.conv2.weight.std().item() - 0.05) < 1e-3 and not model.conv2.bias.any()
    assert abs(zoo.nin_cifar(width=0.25).conv2.weight.std().item() - 0.1) < 2e-3


def test_every_convolution_is_behind_a_relu_and_the_last_maps_are_averaged():
    torch.manual_seed(0)
    model, x = zoo.nin_cifar(width=0.25).eval(), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        y = x
        for name, conv in list(model.named_children())[:-1]:
            y = F.relu(conv(y))
            y = F.max_pool2d(y, 3, 2, 1) if name == "cccp2" else F.avg_pool2d(y, 3, 2, 1) if name == "cccp4" else y
        assert y.shape == (2, 10, 8, 8)
        torch.testing.assert_close(model(x), y.mean((2, 3)))
