"""A network of three stages, so small that it trains on the pictures of ``tiny`` in a second."""

import torch
from torch import Tensor, nn

from penjing.graph.exits import Exit, Exiting
from penjing.graph.stages import branches, look


def _stage(read: int, written: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(read, written, 3, stride, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(written), nn.ReLU(inplace=True))


class Staged(nn.Module):
    """A stem and three stages, at 8 x 8, 4 x 4 and 2 x 2; what follows the first one writes over its map."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(_stage(3, 6, 1), nn.Conv2d(6, 6, 3, 1, 1))
        self.layer2 = nn.Sequential(_stage(6, 8, 2), _stage(8, 8, 1))
        self.layer3 = _stage(8, 12, 2)
        self.head = nn.Linear(12, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer2(self.layer1(x).relu_())
        return self.head(self.layer3(x).mean((2, 3)))


def staged(seed: int = 0) -> nn.Module:
    """Build it with fixed weights, and norms that have seen something."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Staged()
        for _ in range(4):
            model(torch.randn(32, 3, 8, 8))
    return model.eval()


def leaving(seed: int = 0, share: float = 0.5) -> Exiting:
    """Return it with exits behind two stages, at each of which about this share of random pictures is sure enough."""
    network = staged(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        found, _ = branches(look(network, torch.zeros(2, 3, 8, 8)))
        exits = [Exit(branch) for branch in found]
        for one in exits:
            nn.init.normal_(one.head.weight, std=3.0)
        model = Exiting(network, exits, [1.0] * len(exits)).eval()
        x = torch.randn(256, 3, 8, 8)
        with torch.no_grad():
            sure = [logits.softmax(1).amax(1) for logits in model.every(x)[:-1]]
    model.thresholds = tuple(float(one.quantile(1 - share)) for one in sure)
    return model
