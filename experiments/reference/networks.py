"""Forward passes of all network families in PyTorch, float64, written from the papers: for a test.

Imports nothing of this project. Every weight is drawn from its own name, so the test can make the
same ones; only what comes out is stored, in tests/reference/networks.json.

  pip install torch==2.13.0 numpy
  python experiments/reference/networks.py
"""

import json
import pathlib
import zlib

import numpy as np
import torch
import torch.nn.functional as F

CLASSES, SIDE = 10, 16
FILE = pathlib.Path(__file__).parents[2] / "tests" / "reference" / "networks.json"


def draw(name, shape):
    """The array of that name, in this project's layout: [h, w, in, out] for convolutions."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    kind = name.rsplit("/", 1)[-1]
    if kind == "kernel":
        return rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[:-1]))
    if kind == "var":
        return rng.uniform(0.5, 1.5, shape)
    return (kind == "scale") + 0.1 * rng.normal(size=shape)


def get(name, shape):
    return torch.from_numpy(draw(name, shape))


def conv(x, name, out, kernel, stride=1, groups=1, bias=False):
    weight = get(f"{name}/kernel", (kernel, kernel, x.shape[1] // groups, out))
    b = get(f"{name}/bias", (out,)) if bias else None
    return F.conv2d(x, weight.permute(3, 2, 0, 1), b, stride, kernel // 2, groups=groups)


def norm(x, name):
    mean, var, scale, bias = (
        get(f"{name}/{kind}", (x.shape[1],)) for kind in ("mean", "var", "scale", "bias")
    )
    return F.batch_norm(x, mean, var, scale, bias, training=False, eps=1e-5)


def conv_norm(x, name, out, kernel=3, stride=1, groups=1, bias=False):
    return norm(conv(x, f"{name}/conv", out, kernel, stride, groups, bias), f"{name}/norm")


def classify(x):
    weight = get("classifier/linear/kernel", (x.shape[1], CLASSES))
    return x.mean((2, 3)) @ weight + get("classifier/linear/bias", (CLASSES,))


def resnet(x, n):
    x = F.relu(norm(conv(x, "stem", 16, 3), "stem_norm"))
    maps = []
    for stage, width in enumerate((16, 32, 64), 1):
        for block in range(1, n + 1):
            name = f"stage{stage}_block{block}"
            stride = 2 if stage > 1 and block == 1 else 1
            y = F.relu(norm(conv(x, f"{name}/conv1", width, 3, stride), f"{name}/norm1"))
            y = norm(conv(y, f"{name}/conv2", width, 3), f"{name}/norm2")
            if stride == 2:
                x = norm(conv(x, f"{name}/shortcut", width, 1, 2), f"{name}/shortcut_norm")
            x = F.relu(x + y)
        maps.append(x)
    return maps


def wide_resnet(x, n, factor):
    x = conv(x, "stem", 16, 3)
    maps = []
    for stage, width in enumerate((16 * factor, 32 * factor, 64 * factor), 1):
        for block in range(1, n + 1):
            name = f"stage{stage}_block{block}"
            stride = 2 if stage > 1 and block == 1 else 1
            active = F.relu(norm(x, f"{name}/norm1"))
            y = conv(active, f"{name}/conv1", width, 3, stride)
            y = conv(F.relu(norm(y, f"{name}/norm2")), f"{name}/conv2", width, 3)
            if x.shape[1] != width:
                x = conv(active, f"{name}/shortcut", width, 1, stride)
            x = x + y
        maps.append(x)
    maps[-1] = F.relu(norm(x, "norm"))
    return maps


def preact_resnet(x, blocks, bottleneck):
    x = F.relu(conv_norm(x, "stem", 64))
    maps = []
    for stage, count in enumerate(blocks, 1):
        width = 32 * 2**stage
        out = width * (4 if bottleneck else 1)
        for block in range(1, count + 1):
            name = f"stage{stage}_block{block}"
            stride = 2 if stage > 1 and block == 1 else 1
            active = F.relu(norm(x, f"{name}/norm1"))
            changes = stride == 2 or x.shape[1] != out
            x = conv(active, f"{name}/shortcut", out, 1, stride) if changes else active
            if bottleneck:
                y = conv(active, f"{name}/conv1", width, 1)
                y = conv(F.relu(norm(y, f"{name}/norm2")), f"{name}/conv2", width, 3, stride)
                y = conv(F.relu(norm(y, f"{name}/norm3")), f"{name}/conv3", out, 1)
            else:
                y = conv(active, f"{name}/conv1", width, 3, stride)
                y = conv(F.relu(norm(y, f"{name}/norm2")), f"{name}/conv2", width, 3)
            x = x + y
        maps.append(x)
    return maps


def vgg(x, layers):
    maps = []
    for stage, (count, width) in enumerate(zip(layers, (64, 128, 256, 512, 512)), 1):
        for layer in range(1, count + 1):
            x = F.relu(conv_norm(x, f"stage{stage}_layer{layer}", width, bias=True))
        maps.append(x)
        if stage <= 3:
            x = F.max_pool2d(x, 2)
    return maps


def densenet(x, layers, growth, bottleneck):
    x = conv(x, "stem", 2 * growth if bottleneck else 16, 3)
    maps = []
    for stage in range(1, 4):
        for layer in range(1, layers + 1):
            name = f"stage{stage}_layer{layer}"
            y = F.relu(norm(x, f"{name}/norm1"))
            if bottleneck:
                y = conv(y, f"{name}/bottleneck", 4 * growth, 1)
                y = F.relu(norm(y, f"{name}/norm2"))
            x = torch.cat([x, conv(y, f"{name}/conv", growth, 3)], 1)
        maps.append(x)
        if stage < 3:
            out = x.shape[1] // 2 if bottleneck else x.shape[1]
            y = F.relu(norm(x, f"transition{stage}_norm"))
            x = F.avg_pool2d(conv(y, f"transition{stage}", out, 1), 2)
    maps[-1] = F.relu(norm(x, "norm"))
    return maps


def resnext(x, groups, width):
    x = F.relu(conv_norm(x, "stem", 64))
    maps = []
    for stage in range(3):
        inner, out = groups * width * 2**stage, 256 * 2**stage
        for block in range(3):
            name = f"stage{stage + 1}_block{block + 1}"
            stride = 2 if stage and not block else 1
            y = F.relu(conv_norm(x, f"{name}/conv1", inner, 1))
            y = F.relu(conv_norm(y, f"{name}/conv2", inner, 3, stride, groups))
            y = conv_norm(y, f"{name}/conv3", out, 1)
            if not block:
                x = conv_norm(x, f"{name}/shortcut", out, 1, stride)
            x = F.relu(x + y)
        maps.append(x)
    return maps


def mobilenet(x):
    """V2 at half width: expansion, channels, repeats, stride; every row's expansion is kept."""
    x = F.relu(conv_norm(x, "stem", 16, 3, 2))
    rows = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1))
    rows += ((6, 160, 3, 2), (6, 320, 1, 1))
    maps = []
    for row, (expansion, channels, repeats, first_stride) in enumerate(rows, 1):
        if first_stride == 2:
            maps.append(x)
        for block in range(1, repeats + 1):
            name = f"stage{row}_block{block}"
            stride, out = first_stride if block == 1 else 1, channels // 2
            inner = x.shape[1] * expansion
            y = F.relu(conv_norm(x, f"{name}/expand", inner, 1))
            y = F.relu(conv_norm(y, f"{name}/depthwise", inner, 3, stride, inner))
            y = conv_norm(y, f"{name}/project", out, 1)
            x = x + y if stride == 1 and x.shape[1] == out else y
    maps.append(F.relu(conv_norm(x, "last", 1280, 1)))
    return maps


def shuffle(x, groups):
    b, c, h, w = x.shape
    return x.view(b, groups, c // groups, h, w).permute(0, 2, 1, 3, 4).reshape(b, c, h, w)


def shufflenet_v1(x, groups=3):
    x = F.relu(conv_norm(x, "stem", 24, 1))
    maps = []
    for stage, (width, units) in enumerate(((240, 4), (480, 8), (960, 4)), 1):
        for unit in range(1, units + 1):
            name = f"stage{stage}_block{unit}"
            halves = unit == 1
            out = width - x.shape[1] if halves else width
            first = 1 if x.shape[1] == 24 else groups
            y = F.relu(conv_norm(x, f"{name}/conv1", out // 4, 1, groups=first))
            y = shuffle(y, first)
            y = F.relu(conv_norm(y, f"{name}/conv2", out // 4, 3, 2 if halves else 1, out // 4))
            y = conv_norm(y, f"{name}/conv3", out, 1, groups=groups)
            if halves:
                x = F.relu(torch.cat([y, F.avg_pool2d(x, 3, 2, 1)], 1))
            else:
                x = F.relu(y + x)
        maps.append(x)
    return maps


def shufflenet_v2(x):
    x = F.relu(conv_norm(x, "stem", 24, 1))
    maps = []
    for stage, (width, units) in enumerate(((116, 3), (232, 7), (464, 3)), 1):
        half = width // 2
        for unit in range(1, units + 2):
            name = f"stage{stage}_block{unit}"
            if unit == 1:
                left = conv_norm(x, f"{name}/pass1", x.shape[1], 3, 2, x.shape[1])
                left, right, stride = F.relu(conv_norm(left, f"{name}/pass2", half, 1)), x, 2
            else:
                (left, right), stride = x.chunk(2, 1), 1
            right = F.relu(conv_norm(right, f"{name}/conv1", half, 1))
            right = conv_norm(right, f"{name}/conv2", half, 3, stride, half)
            right = F.relu(conv_norm(right, f"{name}/conv3", half, 1))
            x = shuffle(torch.cat([left, right], 1), 2)
        maps.append(x)
    maps[-1] = F.relu(conv_norm(x, "last", 1024, 1))
    return maps


NETWORKS = {
    "resnet8": lambda x: resnet(x, 1),
    "wrn-16-2": lambda x: wide_resnet(x, 2, 2),
    "preact_resnet18": lambda x: preact_resnet(x, (2, 2, 2, 2), False),
    "preact_resnet50": lambda x: preact_resnet(x, (3, 4, 6, 3), True),
    "vgg8": lambda x: vgg(x, (1, 1, 1, 1, 1)),
    "densenet-13-12": lambda x: densenet(x, 3, 12, False),
    "densenet-bc-22-12": lambda x: densenet(x, 3, 12, True),
    "resnext29-2x64d": lambda x: resnext(x, 2, 64),
    "mobilenet_v2": mobilenet,
    "shufflenet_v1": shufflenet_v1,
    "shufflenet_v2": shufflenet_v2,
}


if __name__ == "__main__":
    images = draw("images/kernel", (SIDE, SIDE, 3, 2))  # two images, in the last axis
    batch = torch.from_numpy(images).permute(3, 2, 0, 1)
    results = {}
    for name, run in NETWORKS.items():
        maps = run(batch)
        results[name] = {
            "logits": classify(maps[-1]).tolist(),
            "maps": [m.mean(1)[0].tolist() for m in maps],  # of image 0, mean over channels
        }
        print(name, [tuple(m.shape[1:]) for m in maps], results[name]["logits"][0][:2])
    FILE.write_text(json.dumps(results) + "\n")
