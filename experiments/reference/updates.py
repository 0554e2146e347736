"""Two updates of each method in PyTorch, float64, written from the papers' equations: for a test.

Imports nothing of this project. Writes arrays before and after the updates, in this project's
layout and names, to tests/reference/update_<case>.npz.

  pip install torch==2.13.0 numpy
  python experiments/reference/updates.py
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from arrays import save, snapshot
from layers import CLASSES, Discriminator, Layer, ResNet8, Stages
from torch import nn


class Case(NamedTuple):
    widths: list  # of the stages of each network
    method: str = "afd"  # which feature loss: "afd", "l1", "l2" or "none"
    temperature: float = 3.0
    distil: bool = True  # whether the logits learn from the sources, too
    minlogit: bool = False  # all learn from KDCL's one target
    everyone: bool = False  # learn from all others, not from the one before in the cycle
    second_forward: bool = False  # run again before the feature update
    adamw: bool = False
    network: type = Stages


CASES = {
    "afd_pair": Case([(3, 4, 5), (3, 4, 5)], network=ResNet8),
    "afd_unequal": Case([(3, 4, 7), (3, 5, 5)]),
    "afd_cycle": Case([(3, 4, 5), (2, 3, 6), (4, 4, 5)]),
    "afd_second_forward": Case([(3, 4, 5), (3, 4, 6)], second_forward=True, adamw=True),
    "dml": Case([(3, 4, 5), (2, 3, 6), (4, 4, 5)], "none", temperature=1.0, everyone=True),
    "l1": Case([(3, 4, 7), (3, 5, 5)], "l1", distil=False),
    "l2_everyone": Case([(3, 4, 5), (2, 3, 6), (4, 4, 5)], "l2", everyone=True),
    "kdcl_minlogit": Case([(3, 4, 5), (2, 3, 6), (4, 4, 5)], "none", minlogit=True),
}


def run(case):
    widths, method, temperature, distil, minlogit, everyone, again, adamw, make = CASES[case]
    torch.manual_seed(list(CASES).index(case))
    count = len(widths)
    networks = [make(w) for w in widths]
    common = min(w[2] for w in widths)
    differ = [w[2] != common and method != "none" for w in widths]
    transfers = [
        Layer(w[2], common, kernel=1) if d else nn.Identity() for w, d in zip(widths, differ)
    ]
    critics = [Discriminator(common) for _ in widths] if method == "afd" else []
    extractors = [
        [p for n, p in net.named_parameters() if not n.startswith("classifier")]
        + list(transfer.parameters())
        for net, transfer in zip(networks, transfers)
    ]
    adam = torch.optim.AdamW if adamw else torch.optim.Adam
    sgd = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3, "nesterov": again}
    logit_steps = [torch.optim.SGD(net.parameters(), **sgd) for net in networks]
    feature_steps = [adam(ps, lr=1e-2, weight_decay=0.1) for ps in extractors]
    critic_steps = [adam(c.parameters(), lr=1e-2, weight_decay=0.1) for c in critics]
    images, labels = torch.randn(2, 6, 2, 8, 8), torch.randint(CLASSES, (2, 6))

    roles = {f"{k}/network": net for k, net in enumerate(networks)}
    roles |= {f"{k}/transfer": transfer for k, transfer in enumerate(transfers)}
    roles |= {f"{k}/discriminator": critic for k, critic in enumerate(critics)}
    optimizers = [("logit", optimizer) for optimizer in logit_steps]
    optimizers += [("feature", optimizer) for optimizer in feature_steps]
    optimizers += [("discriminator", optimizer) for optimizer in critic_steps]
    before, logged = snapshot(roles, []), {}
    for x, y in zip(images, labels):
        cycle = [[(k - 1) % count] for k in range(count)]
        others = [[j for j in range(count) if j != k] for k in range(count)]
        sources = others if everyone else cycle
        logits, maps = zip(*[net(x) for net in networks])
        shared = [t(m[-1]) for t, m in zip(transfers, maps)]
        entropy = [F.cross_entropy(z, y) for z in logits]
        soft = []
        for k in range(count):
            own = F.log_softmax(logits[k] / temperature, 1)
            from_logits = [logits[j] for j in sources[k]]
            if minlogit:
                from_logits = [common_target(logits, y)]
            targets = [F.softmax(z.detach() / temperature, 1) for z in from_logits]
            kl = sum(F.kl_div(own, soft_target, reduction="batchmean") for soft_target in targets)
            soft.append(distil * temperature**2 * kl / len(targets))
        logit_grads = [
            torch.autograd.grad(entropy[k] + soft[k], list(net.parameters()), retain_graph=True)
            for k, net in enumerate(networks)
        ]
        if again:
            step(networks, logit_steps, logit_grads)
            _, maps = zip(*[net(x) for net in networks])
            shared = [t(m[-1]) for t, m in zip(transfers, maps)]
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
        if not again:
            step(networks, logit_steps, logit_grads)
        for parameters, optimizer, grads in zip(extractors, feature_steps, feature_grads):
            apply(parameters, optimizer, grads)
        step(critics, critic_steps, critic_grads)
        terms = {"cross_entropy": entropy, "distillation": soft if distil else []}
        terms |= {"generator" if critics else "alignment": feature, "discriminator": tell}
        for term, values in terms.items():
            for k, value in enumerate(values):
                logged.setdefault(f"{k}/{term}", []).append(value.item())

    after = snapshot(roles, optimizers)
    save(case, images=images, labels=labels, before=before, after=after, losses=logged)


def common_target(logits, labels):
    """KDCL's smallest logits, each less that of the true class, an image at a time."""
    rows = []
    for b, label in enumerate(labels):
        own = [z[b] for z in logits]
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


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    for name in CASES:
        run(name)
