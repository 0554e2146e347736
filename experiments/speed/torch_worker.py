"""The same training step in PyTorch, written as people write it; `benchmark.py` starts it.

Variants: "two forwards" (networks run again for the feature losses), "one forward", and, for GPUs,
"compiled" (one forward, networks and discriminators through torch.compile). Words that may follow:
"channels-last" (memory format), "AVX2" (as on processors without AVX-512, such as most laptops').
"""

import json
import os
import platform
import resource
import sys
import time

if "AVX2" in sys.argv[1]:  # read as PyTorch is imported
    os.environ.update(ONEDNN_MAX_CPU_ISA="AVX2", ATEN_CPU_CAPABILITY="avx2")

import torch
import torch.nn.functional as F
from torch import nn

T = 3.0


class Block(nn.Module):
    def __init__(self, before, after, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.shortcut = nn.Identity()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
            )

    def forward(self, x):
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    def __init__(self, depth):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16))
        blocks, before = [], 16
        for stage, width in enumerate((16, 32, 64)):
            for i in range((depth - 2) // 6):
                blocks.append(Block(before, width, 2 if stage and not i else 1))
                before = width
        self.blocks, self.classifier = nn.Sequential(*blocks), nn.Linear(64, 100)

    def forward(self, x):
        maps = self.blocks(F.relu(self.stem(x)))
        return self.classifier(maps.mean((2, 3))), maps


def discriminator():
    layers, before = [], 64
    for width in (64, 128):
        conv = nn.Conv2d(before, width, 3, 2, 1, bias=False)
        layers += [conv, nn.BatchNorm2d(width), nn.LeakyReLU(0.2)]
        before = width
    return nn.Sequential(*layers, nn.Conv2d(before, 1, 2), nn.Sigmoid(), nn.Flatten(0))


class Trainer:
    def __init__(self, task, device):
        self.method, self.variant = task["method"], task["variant"]
        depths = [int(name.removeprefix("resnet")) for name in task["networks"]]
        last = "channels-last" in self.variant
        layout = {
            "device": device,
            "memory_format": torch.channels_last if last else torch.preserve_format,
        }
        self.nets = [ResNet(d).to(**layout) for d in depths]
        self.critics = [discriminator().to(**layout) for _ in depths]
        features = [[*net.stem.parameters(), *net.blocks.parameters()] for net in self.nets]
        self.features = features
        self.logit_steps = [
            torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
            for net in self.nets
        ]
        self.feature_steps = [torch.optim.Adam(p, 2e-5, weight_decay=0.1) for p in features]
        self.critic_steps = [
            torch.optim.Adam(c.parameters(), 2e-5, weight_decay=0.1) for c in self.critics
        ]
        if "compiled" in self.variant:
            self.nets = [torch.compile(net) for net in self.nets]
            self.critics = [torch.compile(critic) for critic in self.critics]
        self.x = torch.randn(task["batch"], 3, 32, 32).to(**layout)
        self.y = torch.randint(100, (task["batch"],), device=device)

    def step(self):
        outputs = [net(self.x) for net in self.nets]
        again = "two forwards" in self.variant
        afd, count = self.method == "afd", len(self.nets)
        for k, (logits, _) in enumerate(outputs):
            loss = F.cross_entropy(logits, self.y)
            sources = {"afd": [k - 1], "dml": [j for j in range(count) if j != k]}
            t = T if afd else 1.0
            for j in sources.get(self.method, []):
                target = F.softmax(outputs[j][0].detach() / t, 1)
                kl = F.kl_div(F.log_softmax(logits / t, 1), target, reduction="batchmean")
                loss = loss + t * t * kl / len(sources[self.method])
            self.logit_steps[k].zero_grad()
            # The graph is still needed where the feature loss comes from the same forward pass.
            loss.backward(retain_graph=afd and not again)
            if again or not afd:
                self.logit_steps[k].step()
        if not afd:
            return
        maps = [net(self.x)[1] for net in self.nets] if again else [m for _, m in outputs]
        grads = []
        for k in range(count):
            fooled = ((1 - self.critics[k](maps[k])) ** 2).mean()
            grads.append(torch.autograd.grad(fooled, self.features[k]))
        for k in range(count):
            if not again:
                self.logit_steps[k].step()
            for p, g in zip(self.features[k], grads[k]):
                p.grad = g
            self.feature_steps[k].step()
        for k in range(count):
            real, fake = (self.critics[k](maps[j].detach()) for j in (k - 1, k))
            self.critic_steps[k].zero_grad()
            (((1 - real) ** 2).mean() + (fake**2).mean()).backward()
            self.critic_steps[k].step()


def main():
    task = json.loads(sys.argv[1])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    trainer = Trainer(task, device)

    def run(steps):
        start = time.perf_counter()
        for _ in range(steps):
            trainer.step()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    facts = {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "first_step_seconds": run(1),
    }
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        request, *rest = line.split()
        if request == "run":
            print(json.dumps({"seconds": run(int(rest[0]))}), flush=True)
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            if device == "cuda":
                peak = torch.cuda.max_memory_allocated()
            print(json.dumps({"peak_bytes": peak}), flush=True)
            return


if __name__ == "__main__":
    main()
