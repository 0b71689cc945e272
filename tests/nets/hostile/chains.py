"""Plain chains of layers."""

# A forward here is what users write, `return self.head(x)`, and torch types a module call as Any.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .case import hostile, pooled, tensors, unit


@hostile("plain_chain")
class PlainChain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(unit(3, 12), unit(12, 20, stride=2), unit(20, 16))
        self.head = pooled(16)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


@hostile("plain_chain_biased", bias=True)
@hostile("plain_chain_without_bias_or_norm", bias=False)
class NormFreeChain(nn.Module):
    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 10, 3, padding=1, bias=bias)
        self.conv2 = nn.Conv2d(10, 18, 3, stride=2, padding=1, bias=bias)
        self.conv3 = nn.Conv2d(18, 14, 1, bias=bias)
        self.fc1 = nn.Linear(14, 22, bias=bias)
        self.fc2 = nn.Linear(22, 5, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        x = F.relu(self.conv3(x)).mean((2, 3))
        return self.fc2(F.relu(self.fc1(x)))


@hostile("deep_chain_30")
class DeepChain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [unit(3, 8)]
        for _ in range(29):
            # After thirty ReLUs all inputs would give one output, and no error could be seen.
            layers += [nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.LeakyReLU(0.5)]
        self.body = nn.Sequential(*layers)
        self.head = pooled(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


@hostile("pointwise_only", tensors((12, 1, 1)))
class PointwiseOnly(nn.Module):
    """Space is 1x1 throughout, so that channel and spatial axes are easily confused with axes of size one."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(unit(12, 16, 1), unit(16, 24, 3), unit(24, 8, 1))
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x).squeeze(3).squeeze(2))


@hostile("nested_containers")
class NestedContainers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        inner = nn.Sequential(nn.Sequential(unit(3, 12)), nn.Identity())
        self.stages = nn.ModuleList([inner, nn.ModuleList([unit(12, 12), unit(12, 20)])])
        self.head = pooled(20)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stages[0](x)
        pair = self.stages[1]
        assert isinstance(pair, nn.ModuleList)
        x = x + pair[0](x)
        return self.head(pair[1](x))


@hostile("module_dict")
class DictOfModules(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = unit(3, 16)
        self.paths = nn.ModuleDict({"near": unit(16, 12, 1), "far": unit(16, 12, 3), "join": unit(24, 16)})
        self.head = pooled(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.cat([self.paths[key](x) for key in ("near", "far")], 1)
        return self.head(self.paths["join"](x))
