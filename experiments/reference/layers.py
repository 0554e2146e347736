"""The small networks of the updates beside this file, in PyTorch."""

import torch
import torch.nn.functional as F
from torch import nn

CLASSES = 5


class Norm(nn.Module):
    """Batch normalisation whose running variance is the biased one, as Flax keeps it."""

    def __init__(self, channels):
        super().__init__()
        self.scale = nn.Parameter(1 + 0.1 * torch.randn(channels))
        self.bias = nn.Parameter(0.1 * torch.randn(channels))
        self.mean, self.var = torch.zeros(channels), torch.ones(channels)
        self.track = True

    def forward(self, x):
        mean = x.mean((0, 2, 3))
        var = ((x - mean[:, None, None]) ** 2).mean((0, 2, 3))
        if self.track:
            self.mean = 0.9 * self.mean + 0.1 * mean.detach()
            self.var = 0.9 * self.var + 0.1 * var.detach()
        normal = (x - mean[:, None, None]) / torch.sqrt(var[:, None, None] + 1e-5)
        return normal * self.scale[:, None, None] + self.bias[:, None, None]


def conv(before, after, kernel, stride=1):
    return nn.Conv2d(before, after, kernel, stride, padding=kernel // 2, bias=False)


class Layer(nn.Module):
    """Convolution, normalisation, ReLU; keeps what comes before the ReLU."""

    def __init__(self, before, after, kernel=3, stride=1):
        super().__init__()
        self.conv, self.norm = conv(before, after, kernel, stride), Norm(after)

    def forward(self, x):
        self.before = self.norm(self.conv(x))
        return F.relu(self.before)


class Stages(nn.Module):
    """Three stages of one layer each, the later ones with stride 2; logits and the stages' maps."""

    def __init__(self, widths):
        super().__init__()
        self.stage1 = Layer(2, widths[0])
        self.stage2 = Layer(widths[0], widths[1], stride=2)
        self.stage3 = Layer(widths[1], widths[2], stride=2)
        self.classifier = nn.Linear(widths[2], CLASSES)

    def forward(self, x):
        maps = [self.stage1(x)]
        maps.append(self.stage2(maps[0]))
        maps.append(self.stage3(maps[1]))
        return self.classifier(maps[2].mean((2, 3))), maps

    def preactivations(self):
        """Of the last call, before the ReLU of each stage."""
        return [self.stage1.before, self.stage2.before, self.stage3.before]


class Block(nn.Module):
    def __init__(self, before, after, stride):
        super().__init__()
        self.conv1, self.norm1 = conv(before, after, 3, stride), Norm(after)
        self.conv2, self.norm2 = conv(after, after, 3), Norm(after)
        self.change = stride != 1 or before != after
        if self.change:
            self.shortcut, self.shortcut_norm = conv(before, after, 1, stride), Norm(after)

    def forward(self, x):
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(y + (self.shortcut_norm(self.shortcut(x)) if self.change else x))


class ResNet8(nn.Module):
    """Three stages of one block each; logits and the last map."""

    def __init__(self, widths):
        super().__init__()
        self.stem, self.stem_norm = conv(2, 3, 3), Norm(3)
        self.stage1_block1 = Block(3, widths[0], 1)
        self.stage2_block1 = Block(widths[0], widths[1], 2)
        self.stage3_block1 = Block(widths[1], widths[2], 2)
        self.classifier = nn.Linear(widths[2], CLASSES)

    def forward(self, x):
        x = F.relu(self.stem_norm(self.stem(x)))
        maps = self.stage3_block1(self.stage2_block1(self.stage1_block1(x)))
        return self.classifier(maps.mean((2, 3))), [maps]


class Discriminator(nn.Module):
    """Two blocks with stride 2 and a convolution over what is left of a 2x2 map: one number."""

    def __init__(self, channels):
        super().__init__()
        self.conv1, self.norm1 = conv(channels, 4, 3, 2), Norm(4)
        self.conv2, self.norm2 = conv(4, 6, 3, 2), Norm(6)
        self.score = nn.Conv2d(6, 1, 1)

    def forward(self, x, track):
        self.norm1.track = self.norm2.track = track
        x = F.leaky_relu(self.norm1(self.conv1(x)), 0.2)
        x = F.leaky_relu(self.norm2(self.conv2(x)), 0.2)
        return torch.sigmoid(self.score(x)).flatten()
