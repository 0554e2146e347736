"""Forward passes of the ResNets for large images in PyTorch, float64, from the paper: for a test.

Imports nothing of this project but the script beside it, whose weights are drawn from their names;
only what comes out is stored, in tests/reference/imagenet_networks.json.

  pip install torch==2.13.0 numpy
  python experiments/reference/imagenet_networks.py
"""

import json

import torch
import torch.nn.functional as F
from networks import FILE, classify, conv, conv_norm, draw, norm

SIDE = 32


def basic_block(x, name, width, stride):
    y = F.relu(norm(conv(x, f"{name}/conv1", width, 3, stride), f"{name}/norm1"))
    y = norm(conv(y, f"{name}/conv2", width, 3), f"{name}/norm2")
    if stride == 2:
        x = norm(conv(x, f"{name}/shortcut", width, 1, 2), f"{name}/shortcut_norm")
    return F.relu(x + y)


def bottleneck(x, name, width, stride):
    y = F.relu(conv_norm(x, f"{name}/conv1", width, 1))
    y = F.relu(conv_norm(y, f"{name}/conv2", width, 3, stride))
    y = conv_norm(y, f"{name}/conv3", 4 * width, 1)
    if x.shape[1] != 4 * width:
        x = conv_norm(x, f"{name}/shortcut", 4 * width, 1, stride)
    return F.relu(x + y)


def resnet(x, counts, block):
    x = F.max_pool2d(F.relu(conv_norm(x, "stem", 64, 7, 2)), 3, 2, 1)
    maps = []
    for stage, count in enumerate(counts):
        for number in range(count):
            stride = 2 if stage and not number else 1
            x = block(x, f"stage{stage + 1}_block{number + 1}", 64 * 2**stage, stride)
        maps.append(x)
    return maps


NETWORKS = {
    "imagenet_resnet18": lambda x: resnet(x, (2, 2, 2, 2), basic_block),
    "imagenet_resnet34": lambda x: resnet(x, (3, 4, 6, 3), basic_block),
    "imagenet_resnet50": lambda x: resnet(x, (3, 4, 6, 3), bottleneck),
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
    FILE.with_name("imagenet_networks.json").write_text(json.dumps(results) + "\n")
