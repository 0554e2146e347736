"""Networks in PyTorch, float64, with the parameter names of the public codes: for a test.

Written from RepDistiller (resnet, wrn, vgg, MobileNetV2, ShuffleNets, ResNet-18 for small images),
CS-KD (pre-activated ResNet) and torchvision (resnet18, resnet50); imports nothing of this project.
Every tensor is drawn from its own name, so the test can make the same state dict; names, shapes and
logits go to tests/reference/foreign_weights.npz. Two small files that torch itself wrote, in its
present and its former format, go beside it.

  pip install torch==2.13.0 numpy
  python experiments/reference/foreign_weights.py
"""

import json
import pathlib
import zlib

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

CLASSES = 10
FOLDER = pathlib.Path(__file__).parents[2] / "tests" / "reference"


def draw(name, shape):
    """The tensor of that name, in PyTorch's layout."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("running_var"):
        return rng.uniform(0.5, 1.5, shape)
    if len(shape) > 1:
        return rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))
    return name.endswith(".weight") + 0.1 * rng.normal(size=shape)


def conv(inputs, outputs, kernel=3, stride=1, groups=1, bias=False):
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=bias)


class Block(nn.Module):
    """Basic block or bottleneck; `shortcut` names what leads around it."""

    def __init__(self, inputs, width, stride, bottleneck=False, shortcut="downsample"):
        super().__init__()
        outputs = width * (4 if bottleneck else 1)
        if bottleneck:
            layers = [(inputs, width, 1), (width, width, 3, stride), (width, outputs, 1)]
        else:
            layers = [(inputs, width, 3, stride), (width, width)]
        for n, layer in enumerate(layers, 1):
            setattr(self, f"conv{n}", conv(*layer))
            setattr(self, f"bn{n}", nn.BatchNorm2d(layer[1]))
        self.layers, self.shortcut_name = len(layers), shortcut
        if stride > 1 or inputs != outputs:
            around = nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))
            setattr(self, shortcut, around)
        else:
            setattr(self, shortcut, nn.Identity())
        self.outputs = outputs

    def forward(self, x):
        y = x
        for n in range(1, self.layers + 1):
            y = getattr(self, f"bn{n}")(getattr(self, f"conv{n}")(y))
            y = F.relu(y) if n < self.layers else y
        return F.relu(y + getattr(self, self.shortcut_name)(x))


class PreActBlock(nn.Module):
    def __init__(self, inputs, width, stride):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), conv(inputs, width, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(width), conv(width, width)
        self.shortcut = nn.Sequential()
        if stride > 1 or inputs != width:
            self.shortcut = nn.Sequential(conv(inputs, width, 1, stride))
        self.outputs = width

    def forward(self, x):
        x = F.relu(self.bn1(x))
        return self.conv2(F.relu(self.bn2(self.conv1(x)))) + self.shortcut(x)


class ResNet(nn.Module):
    def __init__(self, stem, widths, counts, block, last="fc", large=False):
        super().__init__()
        self.conv1 = conv(3, stem, 7, 2) if large else conv(3, stem)
        self.bn1, self.stages, self.large, self.last = (
            nn.BatchNorm2d(stem),
            len(widths),
            large,
            last,
        )
        for stage, (width, count) in enumerate(zip(widths, counts), 1):
            blocks = []
            for n in range(count):
                blocks.append(block(stem, width, 2 if stage > 1 and n == 0 else 1))
                stem = blocks[-1].outputs
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        setattr(self, last, nn.Linear(stem, CLASSES))

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.max_pool2d(x, 3, 2, 1) if self.large else x
        for stage in range(1, self.stages + 1):
            x = getattr(self, f"layer{stage}")(x)
        return getattr(self, self.last)(x.mean((2, 3)))


class WideBlock(nn.Module):
    def __init__(self, inputs, width, stride):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), conv(inputs, width, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(width), conv(width, width)
        self.convShortcut = conv(inputs, width, 1, stride) if inputs != width else None

    def forward(self, x):
        active = F.relu(self.bn1(x))
        y = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return y + (x if self.convShortcut is None else self.convShortcut(active))


class WideResNet(nn.Module):
    def __init__(self, n, factor):
        super().__init__()
        self.conv1, inputs = conv(3, 16), 16
        for stage in (1, 2, 3):
            width, layers = 8 * 2**stage * factor, nn.Module()
            blocks = [WideBlock(inputs, width, 2 if stage > 1 else 1)]
            blocks += [WideBlock(width, width, 1) for _ in range(n - 1)]
            layers.layer, inputs = nn.Sequential(*blocks), width
            setattr(self, f"block{stage}", layers)
        self.bn1, self.fc = nn.BatchNorm2d(inputs), nn.Linear(inputs, CLASSES)

    def forward(self, x):
        x = self.conv1(x)
        for block in (self.block1, self.block2, self.block3):
            x = block.layer(x)
        return self.fc(F.relu(self.bn1(x)).mean((2, 3)))


class VGG(nn.Module):
    def __init__(self, counts):
        super().__init__()
        inputs = 3
        for block, (count, width) in enumerate(zip(counts, (64, 128, 256, 512, 512))):
            layers = []
            for _ in range(count):
                layers += [conv(inputs, width, bias=True), nn.BatchNorm2d(width), nn.ReLU()]
                inputs = width
            setattr(self, f"block{block}", nn.Sequential(*layers[:-1]))
        self.classifier = nn.Linear(512, CLASSES)

    def forward(self, x):
        for block in range(5):
            x = F.relu(getattr(self, f"block{block}")(x))
            x = F.max_pool2d(x, 2) if block < 3 else x
        return self.classifier(x.mean((2, 3)))


def conv_norm(*layer, relu=True):
    return [conv(*layer), nn.BatchNorm2d(layer[1]), *[nn.ReLU()] * relu]


class Inverted(nn.Module):
    def __init__(self, inputs, outputs, stride, expansion):
        super().__init__()
        inner, self.adds = inputs * expansion, stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            *conv_norm(inputs, inner, 1),
            *conv_norm(inner, inner, 3, stride, inner),
            *conv_norm(inner, outputs, 1, relu=False),
        )

    def forward(self, x):
        return x + self.conv(x) if self.adds else self.conv(x)


class MobileNetV2(nn.Module):
    def __init__(self):
        super().__init__()
        rows = ((1, 8, 1, 1), (6, 12, 2, 1), (6, 16, 3, 2), (6, 32, 4, 2), (6, 48, 3, 1))
        rows += ((6, 80, 3, 2), (6, 160, 1, 1))
        self.conv1, inputs = nn.Sequential(*conv_norm(3, 16, 3, 2)), 16
        self.blocks = nn.ModuleList()
        for expansion, width, count, stride in rows:
            blocks = []
            for n in range(count):
                blocks.append(Inverted(inputs, width, 1 if n else stride, expansion))
                inputs = width
            self.blocks.append(nn.Sequential(*blocks))
        self.conv2 = nn.Sequential(*conv_norm(inputs, 1280, 1))
        self.classifier = nn.Sequential(nn.Linear(1280, CLASSES))

    def forward(self, x):
        x = self.conv1(x)
        for blocks in self.blocks:
            x = blocks(x)
        return self.classifier(self.conv2(x).mean((2, 3)))


def numbered(module, *layers):
    for n, layer in enumerate(layers, 1):
        setattr(module, f"conv{n}", conv(*layer))
        setattr(module, f"bn{n}", nn.BatchNorm2d(layer[1]))


def through(module, x, number, relu=True):
    x = getattr(module, f"bn{number}")(getattr(module, f"conv{number}")(x))
    return F.relu(x) if relu else x


def shuffle(x, groups):
    b, c, h, w = x.shape
    return x.view(b, groups, c // groups, h, w).permute(0, 2, 1, 3, 4).reshape(b, c, h, w)


class Grouped(nn.Module):
    def __init__(self, inputs, width, stride):
        super().__init__()
        out, self.first = width - inputs if stride == 2 else width, 1 if inputs == 24 else 3
        mid, self.halves, self.outputs = out // 4, stride == 2, width
        layers = (inputs, mid, 1, 1, self.first), (mid, mid, 3, stride, mid), (mid, out, 1, 1, 3)
        numbered(self, *layers)

    def forward(self, x):
        y = through(self, shuffle(through(self, x, 1), self.first), 2)
        y = through(self, y, 3, relu=False)
        if self.halves:
            return F.relu(torch.cat([y, F.avg_pool2d(x, 3, 2, 1)], 1))
        return F.relu(x + y)


class Split(nn.Module):
    def __init__(self, inputs, width, stride):
        super().__init__()
        half, self.halves, self.outputs = width // 2, stride == 2, width
        right = (half, half, 3, stride, half), (half, half, 1)
        if self.halves:
            around = (inputs, inputs, 3, 2, inputs), (inputs, half, 1)
            numbered(self, *around, (inputs, half, 1), *right)
        else:
            numbered(self, (half, half, 1), *right)

    def forward(self, x):
        if self.halves:
            left, n = through(self, through(self, x, 1, relu=False), 2), 3
        else:
            (left, x), n = x.chunk(2, 1), 1
        right = through(self, through(self, x, n), n + 1, relu=False)
        return shuffle(torch.cat([left, through(self, right, n + 2)], 1), 2)


class ShuffleNet(nn.Module):
    def __init__(self, widths, counts, block, last=None):
        super().__init__()
        numbered(self, (3, 24, 1), *([(widths[-1], last, 1)] if last else []))
        inputs, self.last = 24, last
        for stage, (width, count) in enumerate(zip(widths, counts), 1):
            blocks = [block(inputs, width, 2)]
            blocks += [block(width, width, 1) for _ in range(count - 1)]
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
            inputs = width
        self.linear = nn.Linear(last or inputs, CLASSES)

    def forward(self, x):
        x = self.layer3(self.layer2(self.layer1(through(self, x, 1))))
        x = through(self, x, 2) if self.last else x
        return self.linear(x.mean((2, 3)))


def bottleneck(*layer):
    return Block(*layer, bottleneck=True)


def block_of_small(*layer):
    return Block(*layer, shortcut="shortcut")


WIDE = (64, 128, 256, 512)
NETWORKS = {  # and the side of their images
    "resnet8": (lambda: ResNet(16, (16, 32, 64), (1, 1, 1), Block), 16),
    "resnet56": (lambda: ResNet(16, (16, 32, 64), (9, 9, 9), Block), 16),
    "resnet8x4": (lambda: ResNet(32, (64, 128, 256), (1, 1, 1), Block), 16),
    "wrn-16-2": (lambda: WideResNet(2, 2), 16),
    "vgg8": (lambda: VGG((1, 1, 1, 1, 1)), 16),
    "vgg13": (lambda: VGG((2, 2, 2, 2, 2)), 16),
    "mobilenet_v2": (MobileNetV2, 16),
    "shufflenet_v1": (lambda: ShuffleNet((240, 480, 960), (4, 8, 4), Grouped), 16),
    "shufflenet_v2": (lambda: ShuffleNet((116, 232, 464), (4, 8, 4), Split, 1024), 16),
    "preact_resnet18": (lambda: ResNet(64, WIDE, (2, 2, 2, 2), PreActBlock, "linear"), 16),
    "cifar_resnet18": (lambda: ResNet(64, WIDE, (2, 2, 2, 2), block_of_small, "linear"), 16),
    "imagenet_resnet18": (lambda: ResNet(64, WIDE, (2, 2, 2, 2), Block, large=True), 32),
    "imagenet_resnet50": (lambda: ResNet(64, WIDE, (3, 4, 6, 3), bottleneck, large=True), 32),
}


def images(side):
    return torch.from_numpy(draw("images", (2, 3, side, side)))


def small_files():
    """What torch.save writes: types, strides, shared storages and a wrapper."""
    whole = torch.arange(24, dtype=torch.float32)
    state = nn.Module().state_dict()  # an OrderedDict with metadata
    state["module.transposed"] = whole.view(4, 6).t()
    state["module.sliced"] = whole.view(4, 6)[1:3, ::2]
    state["module.half"] = torch.tensor([0.5, -2.0], dtype=torch.float16)
    state["module.brain"] = torch.tensor([0.5, -3.0], dtype=torch.bfloat16)
    state["module.double"] = torch.tensor(0.1, dtype=torch.float64)
    state["module.count"] = torch.tensor(7)
    content = {"epoch": 3, "model": state, "best_acc": torch.tensor(71.5)}
    torch.save(content, FOLDER / "torch_zip.pth")
    legacy = FOLDER / "torch_legacy.pth"
    torch.save(content, legacy, _use_new_zipfile_serialization=False)


if __name__ == "__main__":
    results = {}
    for name, (make, side) in NETWORKS.items():
        network = make().double().eval()
        shapes = {
            key: list(tensor.shape)
            for key, tensor in network.state_dict().items()
            if not key.endswith("num_batches_tracked")
        }
        state = {key: torch.from_numpy(draw(key, shape)) for key, shape in shapes.items()}
        counts = {k: v for k, v in network.state_dict().items() if k not in state}
        network.load_state_dict({**state, **counts})
        with torch.no_grad():
            logits = network(images(side)).tolist()
        results[name] = {"side": side, "shapes": shapes, "logits": logits}
        print(name, logits[0][:2])
    index = np.frombuffer(json.dumps(results).encode(), np.uint8)
    np.savez_compressed(FOLDER / "foreign_weights.npz", index=index)
    small_files()
