"""Two updates of networks that learn from each other's maps and classifiers, in PyTorch, float64.

Written from the papers' equations; imports nothing of this project. Writes arrays before and after
the updates, in this project's layout and names, to tests/reference/update_<case>.npz.

  pip install torch==2.13.0 numpy
  python experiments/reference/peers.py [CASE ...]
"""

import sys

import torch
import torch.nn.functional as F
from arrays import save, snapshot
from layers import CLASSES, Norm, Stages, conv
from torch import nn

WIDTHS = {
    "dcm": [(3, 4, 5), (2, 3, 6)],
    "mcl": [(3, 4, 5), (2, 3, 6), (4, 4, 5)],
}


class Wide(nn.Module):
    """A pre-activated block."""

    def __init__(self, before, after, stride):
        super().__init__()
        self.norm1, self.conv1 = Norm(before), conv(before, after, 3, stride)
        self.norm2, self.conv2 = Norm(after), conv(after, after, 3)
        self.change = before != after
        if self.change:
            self.shortcut = conv(before, after, 1, stride)

    def forward(self, x):
        y = F.relu(self.norm1(x))
        x = self.shortcut(y) if self.change else x
        return x + self.conv2(F.relu(self.norm2(self.conv1(y))))


class Auxiliary(nn.Module):
    """Stages of blocks, (width, blocks) each and each halving the map, and a classifier."""

    def __init__(self, before, *stages):
        super().__init__()
        self.blocks = []
        for s, (width, count) in enumerate(stages, 1):
            for b in range(1, count + 1):
                self.blocks.append(Wide(before, width, 2 if b == 1 else 1))
                setattr(self, f"stage{s}_block{b}", self.blocks[-1])
                before = width
        self.norm, self.classifier = Norm(before), nn.Linear(before, CLASSES)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.classifier(F.relu(self.norm(x)).mean((2, 3)))


class Embedding(nn.Module):
    """Two linear layers, and length 1."""

    def __init__(self, before, size):
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(before, size), nn.Linear(size, size)

    def forward(self, x):
        return F.normalize(self.linear2(F.relu(self.linear1(x))))


def make_heads(name, widths):
    """Of one network."""
    if name == "mcl":
        return {"embedding": Embedding(widths[2], 4)}
    return {
        "auxiliary1": Auxiliary(widths[0], (widths[1], 2), (widths[2], 1)),
        "auxiliary2": Auxiliary(widths[1], (2 * widths[2], 2)),
    }


def dcm(outputs, heads, y):
    """The losses of each network."""
    ends = [
        [z, own["auxiliary1"](maps[0]), own["auxiliary2"](maps[1])]
        for (z, maps), own in zip(outputs, heads)
    ]
    losses = []
    for ours, theirs in zip(ends, ends[::-1]):
        kl = sum(
            F.kl_div(F.log_softmax(o, 1), F.softmax(p.detach(), 1), reduction="batchmean")
            for o in ours
            for p in theirs
        )
        first, *others = (F.cross_entropy(o, y) for o in ours)
        losses.append({"cross_entropy": first, "auxiliary": sum(others), "distillation": kl})
    return losses


def contrast(similarities, labels):
    """Example by example; one that is alone in its class adds nothing."""
    found = []
    for i, row in enumerate(similarities):
        others = [j for j in range(len(labels)) if j != i]
        positive = [j for j in others if labels[j] == labels[i]]
        log_total = torch.logsumexp(row[others], 0)
        mean = sum(row[p] - log_total for p in positive) / max(len(positive), 1)
        found.append(-mean if positive else torch.zeros(()))
    return 0.1 * sum(found) / len(found)


def relations(own, target):
    kl = F.kl_div(F.log_softmax(own / 3, 1), F.softmax(target.detach() / 3, 1), reduction="none")
    return 9 * kl.sum() / len(own)


def mcl(outputs, heads, y):
    """What each network learns, where the others are constants."""
    embedded = [own["embedding"](maps[2].mean((2, 3))) for (_, maps), own in zip(outputs, heads)]
    losses = []
    for k, (z, _) in enumerate(outputs):
        own = embedded[k]
        terms = {"cross_entropy": F.cross_entropy(z, y), "contrast": contrast(own @ own.T / 0.1, y)}
        for name in ("relations", "contrast_with_peers", "relations_with_peers"):
            terms[name] = 0
        for j, other in enumerate(embedded):
            if j != k:
                here, there = own @ other.T / 0.1, other @ own.T / 0.1
                terms["relations"] += relations(own @ own.T / 0.1, other @ other.T / 0.1)
                terms["contrast_with_peers"] += contrast(here, y) + contrast(there, y)
                terms["relations_with_peers"] += relations(here, there) + relations(there, here)
        losses.append(terms)
    return losses


def total(name, losses):
    """What the authors minimise: one sum over all networks, in which each pair stands once."""
    once = {"contrast_with_peers", "relations_with_peers"} if name == "mcl" else set()
    terms = [item for own in losses for item in own.items()]
    return sum(value / 2 if term in once else value for term, value in terms)


METHODS = {"dcm": dcm, "mcl": mcl}


def run(name):
    torch.manual_seed(300 + list(METHODS).index(name))
    networks = [Stages(widths) for widths in WIDTHS[name]]
    heads = [make_heads(name, widths) for widths in WIDTHS[name]]
    roles = {f"{k}/network": net for k, net in enumerate(networks)}
    roles |= {f"{k}/{role}": head for k, own in enumerate(heads) for role, head in own.items()}
    moved = [p for module in roles.values() for p in module.parameters()]
    sgd = torch.optim.SGD(moved, lr=0.1, momentum=0.9, weight_decay=1e-3)
    images, labels = torch.randn(2, 6, 2, 8, 8), torch.randint(CLASSES, (2, 6))
    before, logged = snapshot(roles, []), {}
    for x, y in zip(images, labels):
        losses = METHODS[name]([net(x) for net in networks], heads, y)
        sgd.zero_grad()
        total(name, losses).backward()
        sgd.step()
        for k, own in enumerate(losses):
            for term, value in own.items():
                logged.setdefault(f"{k}/{term}", []).append(value.item())
    after = snapshot(roles, [("logit", sgd)])
    save(name, images=images, labels=labels, before=before, after=after, losses=logged)


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    for name in sys.argv[1:] or METHODS:
        run(name)
