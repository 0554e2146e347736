"""Forward passes of the ResNets for large images in PyTorch, float64, from the paper: for a test.

Imports nothing of this project but the script beside it, whose weights are drawn from their names;
only what comes out is stored, in tests/reference/imagenet_networks.json.

  pip install torch==2.13.0 numpy
  python experiments/reference/imagenet_networks.py
"""

import json

import torch.nn.functional as F
from networks import (
    FILE,
    basic_block,
    bottleneck,
    classify,
    conv_norm,
    pictures,
    shown,
    stages,
)

SIDE = 32


def resnet(x, counts, block):
    x = F.max_pool2d(F.relu(conv_norm(x, "stem", 64, 7, 2)), 3, 2, 1)
    return stages(x, counts, 64, block)[0]


NETWORKS = {
    "imagenet_resnet18": lambda x: resnet(x, (2, 2, 2, 2), basic_block),
    "imagenet_resnet34": lambda x: resnet(x, (3, 4, 6, 3), basic_block),
    "imagenet_resnet50": lambda x: resnet(x, (3, 4, 6, 3), bottleneck),
}


if __name__ == "__main__":
    results = {}
    for name, run in NETWORKS.items():
        maps = run(pictures(SIDE))
        results[name] = {
            "logits": classify(maps[-1]).tolist(),
            "maps": [*map(shown, maps)],
        }
        print(name, [tuple(m.shape[1:]) for m in maps], results[name]["logits"][0][:2])
    FILE.with_name("imagenet_networks.json").write_text(json.dumps(results) + "\n")
