"""Two updates of each method in PyTorch, float64, written from the papers' equations: for a test.

Imports nothing of this project. Writes arrays before and after the updates, in this project's
layout and names, to tests/reference/update_<case>.npz.

  pip install torch==2.13.0 numpy
  python experiments/reference/updates.py
"""

import pathlib
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

CLASSES = 5
FOLDER = pathlib.Path(__file__).parents[2] / "tests" / "reference"


class Case(NamedTuple):
    widths: list  # of the stages of each network
    method: str = "afd"  # which feature loss: "afd", "l1", "l2" or "none"
    temperature: float = 3.0
    distil: bool = True  # whether the logits learn from the sources, too
    target: str = ""  # all learn from one target: "naive" or "minlogit"
    everyone: bool = False  # learn from all others, not from the one before in the cycle
    second_forward: bool = False  # run again before the feature update
    adamw: bool = False


CASES = {
    "afd_pair": Case([(3, 4, 5), (3, 4, 5)]),
    "afd_unequal": Case([(3, 4, 7), (3, 5, 5)]),
    "afd_cycle": Case([(3, 4, 5), (2, 3, 6), (4, 4, 5)]),
    "afd_second_forward": Case([(3, 4, 5), (3, 4, 6)], second_forward=True, adamw=True),
    "dml": Case([(3, 4, 5), (2, 3, 6), (4, 4, 5)], "none", temperature=1.0, everyone=True),
    "l1": Case([(3, 4, 7), (3, 5, 5)], "l1", distil=False),
    "l1_and_logits": Case([(3, 4, 5), (3, 4, 5)], "l1"),
    "l2_everyone": Case([(3, 4, 5), (2, 3, 6), (4, 4, 5)], "l2", everyone=True),
    "kdcl_naive": Case([(3, 4, 5), (2, 3, 6), (4, 4, 5)], "none", target="naive"),
    "kdcl_minlogit": Case([(3, 4, 5), (2, 3, 6), (4, 4, 5)], "none", target="minlogit"),
}


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


class Network(nn.Module):
    """ResNet-8 with three stages of one block; `classifier` comes after the feature map."""

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
        return self.classifier(maps.mean((2, 3))), maps


class Transfer(nn.Module):
    def __init__(self, before, after):
        super().__init__()
        self.conv, self.norm = conv(before, after, 1), Norm(after)

    def forward(self, x):
        return F.relu(self.norm(self.conv(x)))


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


def run(case):
    widths, method, temperature, distil, target, everyone, second_forward, adamw = CASES[case]
    torch.manual_seed(list(CASES).index(case))
    count = len(widths)
    networks = [Network(w) for w in widths]
    common = min(w[2] for w in widths)
    differ = [w[2] != common and method != "none" for w in widths]
    transfers = [Transfer(w[2], common) if d else nn.Identity() for w, d in zip(widths, differ)]
    critics = [Discriminator(common) for _ in widths] if method == "afd" else []
    extractors = [
        [p for n, p in net.named_parameters() if not n.startswith("classifier")]
        + list(transfer.parameters())
        for net, transfer in zip(networks, transfers)
    ]
    adam = torch.optim.AdamW if adamw else torch.optim.Adam
    sgd = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3, "nesterov": second_forward}
    logit_steps = [torch.optim.SGD(net.parameters(), **sgd) for net in networks]
    feature_steps = [adam(ps, lr=1e-2, weight_decay=0.1) for ps in extractors]
    critic_steps = [adam(c.parameters(), lr=1e-2, weight_decay=0.1) for c in critics]
    images, labels = torch.randn(2, 6, 2, 8, 8), torch.randint(CLASSES, (2, 6))

    everything = (networks, transfers, critics, logit_steps, feature_steps, critic_steps)
    before = snapshot(*everything)
    logged = []
    for x, y in zip(images, labels):
        cycle = [[(k - 1) % count] for k in range(count)]
        others = [[j for j in range(count) if j != k] for k in range(count)]
        sources = others if everyone else cycle
        logits, maps = zip(*[net(x) for net in networks])
        shared = [t(m) for t, m in zip(transfers, maps)]
        entropy = [F.cross_entropy(z, y) for z in logits]
        soft = []
        for k in range(count):
            own = F.log_softmax(logits[k] / temperature, 1)
            from_logits = [logits[j] for j in sources[k]]
            if target:
                from_logits = [common_target(target, logits, y)]
            targets = [F.softmax(z.detach() / temperature, 1) for z in from_logits]
            kl = sum(F.kl_div(own, soft_target, reduction="batchmean") for soft_target in targets)
            soft.append(distil * temperature**2 * kl / len(targets))
        logit_grads = [
            torch.autograd.grad(entropy[k] + soft[k], list(net.parameters()), retain_graph=True)
            for k, net in enumerate(networks)
        ]
        if second_forward:
            step(networks, logit_steps, logit_grads)
            _, maps = zip(*[net(x) for net in networks])
            shared = [t(m) for t, m in zip(transfers, maps)]
        if method == "afd":
            feature = [((1 - critics[k](shared[k], False)) ** 2).mean() for k in range(count)]
        elif method in ("l1", "l2"):
            power = 1 if method == "l1" else 2
            feature = [
                sum(((shared[k] - shared[j].detach()).abs() ** power).mean() for j in sources[k])
                / len(sources[k])
                for k in range(count)
            ]
        else:
            feature = []
        feature_grads = [
            torch.autograd.grad(loss, extractors[k], retain_graph=True)
            for k, loss in enumerate(feature)
        ]
        tell = []
        for k in range(len(critics)):
            real = critics[k](shared[sources[k][0]].detach(), True)
            fake = critics[k](shared[k].detach(), True)
            tell.append(((1 - real) ** 2 + fake**2).mean())
        critic_grads = [
            torch.autograd.grad(loss, list(critics[k].parameters())) for k, loss in enumerate(tell)
        ]
        if not second_forward:
            step(networks, logit_steps, logit_grads)
        for parameters, optimizer, grads in zip(extractors, feature_steps, feature_grads):
            apply(parameters, optimizer, grads)
        step(critics, critic_steps, critic_grads)
        values = (entropy, soft, feature, tell)
        logged.append(torch.stack([torch.stack(v) for v in values if v]))

    arrays = {f"before/{name}": value for name, value in before.items()}
    arrays |= {f"after/{name}": value for name, value in snapshot(*everything).items()}
    arrays["images"] = images.permute(0, 1, 3, 4, 2).numpy()
    arrays["labels"] = labels.numpy().astype(np.int32)
    arrays["losses"] = torch.stack(logged).detach().numpy()  # [update, loss, network]
    np.savez_compressed(FOLDER / f"update_{case}.npz", **arrays)
    print(f"{case}: {len(arrays)} arrays, losses of network 0 {arrays['losses'][0, :, 0]}")


def common_target(name, logits, labels):
    """KDCL's target, an image at a time."""
    rows = []
    for b, label in enumerate(labels):
        own = [z[b] for z in logits]
        if name == "naive":
            rows.append(min(own, key=lambda z: F.cross_entropy(z[None], label[None]).item()))
        else:
            rows.append(torch.stack([z - z[label] for z in own]).min(0).values)
    return torch.stack(rows)


def step(modules, optimizers, grads):
    for module, optimizer, grad in zip(modules, optimizers, grads):
        apply(list(module.parameters()), optimizer, grad)


def apply(parameters, optimizer, grads):
    for p, g in zip(parameters, grads):
        p.grad = g
    optimizer.step()
    optimizer.zero_grad()


def snapshot(networks, transfers, critics, logit_steps, feature_steps, critic_steps):
    """Everything that changes, under this project's names."""
    arrays = {}
    for k in range(len(networks)):
        roles = {
            "network": (networks[k], [("logit", logit_steps[k]), ("feature", feature_steps[k])]),
            "transfer": (transfers[k], [("feature", feature_steps[k])]),
        }
        if critics:
            roles["discriminator"] = (critics[k], [("discriminator", critic_steps[k])])
        for role, (module, optimizers) in roles.items():
            for name, parameter in module.named_parameters():
                path = f"{k}/{role}/{rename(name)}"
                arrays[f"params/{path}"] = layout(parameter)
                for update, optimizer in optimizers:
                    for key, value in optimizer.state.get(parameter, {}).items():
                        if key != "step":
                            arrays[f"{update}/{key}/{path}"] = layout(value)
            for name, norm in module.named_modules():
                if isinstance(norm, Norm):
                    path = f"{k}/{role}/{name.replace('.', '/')}"
                    arrays[f"statistics/{path}/mean"] = layout(norm.mean)
                    arrays[f"statistics/{path}/var"] = layout(norm.var)
    return arrays


def rename(name):
    path = name.replace(".", "/").replace("classifier/", "classifier/linear/")
    return path.replace("weight", "kernel")


def layout(value):
    """Convolutions from [out, in, h, w] to [h, w, in, out], matrices transposed."""
    array = value.detach().clone()
    order = {4: (2, 3, 1, 0), 2: (1, 0)}.get(array.ndim)
    return (array.permute(order) if order else array).numpy().copy()


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in CASES:
        run(name)
