"""AlexNet as published, its second, fourth and fifth convolution in two groups: two graphics cards' halves.

Paper: Krizhevsky, Sutskever and Hinton, ImageNet Classification with Deep Convolutional Neural Networks, NeurIPS 2012,
section 3.5 and figure 2. Pictures are 227 x 227, which the convolutions need; the paper writes 224.
Differs: the two neighbouring halves lie in one layer with two groups; weights start as in the rest of the zoo.
"""

from __future__ import annotations

from torch import Tensor, nn

from penjing.zoo.initial import he_normal


class AlexNet(nn.Module):
    """Classify 227 x 227 colour pictures with five convolutions and three linear layers.

    Names are those of the reference implementation: conv1 to conv5, fc6 to fc8.

    Shapes: x [n, 3, 227, 227] → logits [n, num_classes].
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 96, 11, stride=4)
        self.conv2 = nn.Conv2d(96, 256, 5, padding=2, groups=2)
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1, groups=2)
        self.conv5 = nn.Conv2d(384, 256, 3, padding=1, groups=2)
        self.fc6 = nn.Linear(256 * 6 * 6, 4096)
        self.fc7 = nn.Linear(4096, 4096)
        self.fc8 = nn.Linear(4096, num_classes)
        self.relu = nn.ReLU()
        # Section 3.3: k = 2, n = 5, α = 1e-4, β = 0.75; PyTorch divides α by n.
        self.norm = nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)
        self.pool = nn.MaxPool2d(3, stride=2)
        self.drop = nn.Dropout(0.5)
        he_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = self.pool(self.norm(self.relu(self.conv1(x))))
        x = self.pool(self.norm(self.relu(self.conv2(x))))
        x = self.relu(self.conv4(self.relu(self.conv3(x))))
        x = self.pool(self.relu(self.conv5(x))).flatten(1)
        x = self.drop(self.relu(self.fc6(x)))
        x = self.drop(self.relu(self.fc7(x)))
        logits: Tensor = self.fc8(x)
        return logits


def alexnet(num_classes: int = 1000) -> AlexNet:
    """Build AlexNet (60,965,224 parameters; 666 million MACs in its convolutions, 59 million in its linear layers)."""
    return AlexNet(num_classes)
