"""Forward passes of all network families in PyTorch, float64, written from the papers: for a test.

Imports nothing of this project. Every weight is drawn from its own name, so the test can make the
same ones; only what comes out is stored, in tests/reference/networks.json (where the last map is
the one before pooling) and more_networks.json (where it is the last stage's own, and the one before
pooling stands beside it as "features").

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


def linear(x, name, out):
    return x @ get(f"{name}/kernel", (x.shape[1], out)) + get(f"{name}/bias", (out,))


def classify(x, hidden=()):
    x = x.mean((2, 3))
    for i, width in enumerate(hidden, 1):
        x = F.relu(linear(x, f"classifier/linear{i}", width))
    return linear(x, "classifier/linear", CLASSES)


def basic_block(x, name, width, stride):
    y = F.relu(norm(conv(x, f"{name}/conv1", width, 3, stride), f"{name}/norm1"))
    y = norm(conv(y, f"{name}/conv2", width, 3), f"{name}/norm2")
    if stride == 2:
        x = norm(conv(x, f"{name}/shortcut", width, 1, 2), f"{name}/shortcut_norm")
    return F.relu(x + y)


def bottleneck(x, name, width, stride, inner=1):
    y = F.relu(conv_norm(x, f"{name}/conv1", inner * width, 1))
    y = F.relu(conv_norm(y, f"{name}/conv2", inner * width, 3, stride))
    y = conv_norm(y, f"{name}/conv3", 4 * width, 1)
    if x.shape[1] != 4 * width:
        x = conv_norm(x, f"{name}/shortcut", 4 * width, 1, stride)
    return F.relu(x + y)


def stages(x, counts, width, block, **options):
    """Blocks of stages, each but the first with half the pixels and twice the channels."""
    maps = []
    for stage, count in enumerate(counts):
        for number in range(count):
            stride = 2 if stage and not number else 1
            name = f"stage{stage + 1}_block{number + 1}"
            x = block(x, name, width * 2**stage, stride, **options)
        maps.append(x)
    return maps, x


def resnet(x, n, block=basic_block, **options):
    x = F.relu(norm(conv(x, "stem", 16, 3), "stem_norm"))
    return stages(x, (n, n, n), 16, block, **options)


def cifar_resnet(x, counts, block):
    return stages(F.relu(conv_norm(x, "stem", 64)), counts, 64, block)


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
    return maps, F.relu(norm(x, "norm"))


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
    return maps, x


def vgg(x, layers, halvings=3):
    maps = []
    for stage, (count, width) in enumerate(zip(layers, (64, 128, 256, 512, 512)), 1):
        for layer in range(1, count + 1):
            x = F.relu(conv_norm(x, f"stage{stage}_layer{layer}", width, bias=True))
        maps.append(x)
        if stage <= halvings:
            x = F.max_pool2d(x, 2)
    return maps, x


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
    return maps, F.relu(norm(x, "norm"))


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
    return maps, x


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
    return [*maps, x], F.relu(conv_norm(x, "last", 1280, 1))


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
    return maps, x


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
    return maps, F.relu(conv_norm(x, "last", 1024, 1))


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

# Those whose last map is not their last stage's, and those that came later.
MORE = {
    name: NETWORKS[name]
    for name in ("wrn-16-2", "densenet-13-12", "densenet-bc-22-12", "mobilenet_v2", "shufflenet_v2")
}
MORE |= {
    "cifar_resnet18": lambda x: cifar_resnet(x, (2, 2, 2, 2), basic_block),
    "cifar_resnet50": lambda x: cifar_resnet(x, (3, 4, 6, 3), bottleneck),
    "vgg11": lambda x: vgg(x, (1, 1, 2, 2, 2)),
    "vgg19": lambda x: vgg(x, (2, 2, 4, 4, 4)),
    "okddip_resnet29": lambda x: resnet(x, 3, bottleneck),  # a shorter okddip_resnet110
    "okddip_wrn-20-8": lambda x: resnet(x, 2, bottleneck, inner=8),
    "okddip_vgg16": lambda x: vgg(x, (2, 2, 3, 3, 3), halvings=5),
}
HIDDEN = {"okddip_vgg16": (512, 512)}
SIDES = {"okddip_vgg16": 32}  # smaller images leave no map


def pictures(side):
    images = draw("images/kernel", (side, side, 3, 2))  # two images, in the last axis
    return torch.from_numpy(images).permute(3, 2, 0, 1)


def shown(x):
    return x.mean(1)[0].tolist()  # of image 0, mean over channels


if __name__ == "__main__":
    results = {}
    for name, run in NETWORKS.items():
        maps, last = run(pictures(SIDE))
        results[name] = {
            "logits": classify(last).tolist(),
            "maps": [*map(shown, maps[:-1]), shown(last)],
        }
        print(name, [tuple(m.shape[1:]) for m in maps], results[name]["logits"][0][:2])
    FILE.write_text(json.dumps(results) + "\n")
    results = {}
    for name, run in MORE.items():
        maps, last = run(pictures(SIDES.get(name, SIDE)))
        results[name] = {
            "logits": classify(last, HIDDEN.get(name, ())).tolist(),
            "maps": [*map(shown, maps)],
            "features": shown(last),
        }
        print(name, [tuple(m.shape[1:]) for m in maps], results[name]["logits"][0][:2])
    FILE.with_name("more_networks.json").write_text(json.dumps(results) + "\n")
