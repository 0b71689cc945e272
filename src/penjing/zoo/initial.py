"""The starting weights every network of the zoo shares."""

from __future__ import annotations

from torch import nn


def he_normal(model: nn.Module) -> None:
    """Draw convolutions and linears from N(0, 2 / fan), in place; biases 0, batch norm 1 and 0.

    The draws come from PyTorch's global generator, as for any ``nn.Module``: seed it to repeat them.

    Paper: He et al., Delving Deep into Rectifiers, ICCV 2015, eq. 14 (fan out, k²·T) for convolutions and
    eq. 10 (fan in) for linears.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
