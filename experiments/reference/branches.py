"""Two updates of the methods on branches in PyTorch, float64, written from the papers: for a test.

Imports nothing of this project. Writes arrays before and after the updates, in this project's
layout and names, to tests/reference/update_<case>.npz.

  pip install torch==2.13.0 numpy
  python experiments/reference/branches.py
"""

import copy
import math

import torch
import torch.nn.functional as F
from arrays import save, snapshot
from layers import CLASSES, Layer, Norm
from torch import nn

WIDTHS = (3, 4, 5)
T, STEPS, RAMP = 3.0, 4, 80 / 300  # a run of four steps, of which two are taken
BRANCHES = {"one": 3, "okddip": 4, "pcl": 3, "clilr": 4}


class Lower(nn.Module):
    def __init__(self):
        super().__init__()
        self.stage1, self.stage2 = Layer(2, WIDTHS[0]), Layer(WIDTHS[0], WIDTHS[1], stride=2)

    def forward(self, x):
        return self.stage2(self.stage1(x))


class Upper(nn.Module):
    def __init__(self):
        super().__init__()
        self.stage3 = Layer(WIDTHS[1], WIDTHS[2], stride=2)
        self.classifier = nn.Linear(WIDTHS[2], CLASSES)

    def forward(self, x):
        pooled = self.stage3(x).mean((2, 3))
        return self.classifier(pooled), pooled


class Network(nn.Module):
    def __init__(self, method):
        super().__init__()
        count = BRANCHES[method]
        self.method, self.shared = method, Lower()
        for i in range(count):
            setattr(self, f"branch{i}", Upper())
        self.heads = nn.Module()
        if method == "one":
            self.heads.linear, self.heads.norm = nn.Linear(WIDTHS[1], count), Norm(count)
        elif method == "okddip":
            self.heads.query = nn.Linear(WIDTHS[2], 1, bias=False)
            self.heads.key = nn.Linear(WIDTHS[2], 1, bias=False)
        elif method == "pcl":
            self.heads.classifier = nn.Linear(count * WIDTHS[2], CLASSES)

    def forward(self, views):
        """views: one batch of images for each branch, or one for all."""
        count = BRANCHES[self.method]
        low = self.shared(torch.cat(views)).split(len(views[0])) if len(views) > 1 else None
        shared = low or [self.shared(views[0])] * count
        if self.method == "clilr" and shared[0].requires_grad:
            shared[0].register_hook(lambda gradient: gradient / count)
        parts = [getattr(self, f"branch{i}")(shared[i]) for i in range(count)]
        logits, pooled = [z for z, _ in parts], [h for _, h in parts]
        if self.method == "clilr":
            return logits, [(sum(logits) - z) / (count - 1) for z in logits]
        if self.method == "one":
            scores = self.heads.linear(shared[0].mean((2, 3)))
            gate = F.softmax(F.relu(self.heads.norm(scores[:, :, None, None]))[..., 0, 0], 1)
            return logits, sum(gate[:, i, None] * z for i, z in enumerate(logits))
        if self.method == "okddip":
            *peers, _ = pooled
            q, k = (torch.stack([f(h) for h in peers]) for f in (self.heads.query, self.heads.key))
            attention = F.softmax((q[:, None] * k[None]).sum(-1), 1)  # [target, source, batch]
            mixes = [
                sum(attention[a, b, :, None] * logits[b] for b in range(len(peers)))
                for a in range(len(peers))
            ]
            return logits, mixes
        return logits, self.heads.classifier(torch.cat(pooled, 1))


def divergence(own, target):
    """T² KL(target || own), batch mean; no gradient is stopped here."""
    p, q = F.log_softmax(target / T, 1), F.log_softmax(own / T, 1)
    return T**2 * (p.exp() * (p - q)).sum(1).mean()


def losses(method, net, average, views, labels, weight):
    """Per node: cross-entropy and the distillation losses, as a list of dicts."""
    logits, more = net(views)
    terms = [{"cross_entropy": F.cross_entropy(z, labels)} for z in logits]
    if method == "one":
        for z, term in zip(logits, terms):
            term["distillation"] = weight * divergence(z, more.detach())
    elif method == "clilr":
        for z, mean, term in zip(logits, more, terms):
            term["distillation"] = weight * divergence(z, mean)
        return terms
    elif method == "okddip":
        *peers, leader = logits
        for z, mix, term in zip(peers, more, terms):
            term["distillation"] = weight * divergence(z, mix)
        terms[-1]["distillation"] = weight * divergence(leader, sum(peers) / len(peers))
        return terms
    else:
        with torch.no_grad():
            teachers, _ = average(views)
        for i, (z, term) in enumerate(zip(logits, terms)):
            others = [t for j, t in enumerate(teachers) if j != i]
            term["distillation"] = weight * divergence(z, more.detach())
            term["mean_teachers"] = weight * sum(divergence(z, t) for t in others) / len(others)
    return [*terms, {"cross_entropy": F.cross_entropy(more, labels)}]


def run(method):
    torch.manual_seed(list(BRANCHES).index(method))
    net = Network(method)
    average = copy.deepcopy(net) if method == "pcl" else None
    sgd = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3, nesterov=True)
    views = BRANCHES[method] if method == "pcl" else 1
    images, labels = torch.randn(2, views, 6, 2, 8, 8), torch.randint(CLASSES, (2, 6))
    roles = {"0/network": net} if average is None else {"0/network": net, "1/network": average}
    before, logged = snapshot(roles, []), {}
    for t, (x, y) in enumerate(zip(images, labels)):
        weight = math.exp(-5 * (1 - min(1, t / STEPS / RAMP)) ** 2)
        terms = losses(method, net, average, list(x), y, weight)
        sgd.zero_grad()
        sum(value for term in terms for value in term.values()).backward()
        sgd.step()
        for k, term in enumerate(terms):
            for name, value in term.items():
                logged.setdefault(f"{k}/{name}", []).append(value.item())
        if average is not None:
            decay = min(1 - 1 / (t + 2), 0.999)
            with torch.no_grad():
                for mean, new in zip(average.parameters(), net.parameters()):
                    mean.mul_(decay).add_(new, alpha=1 - decay)
    after = snapshot(roles, [("logit", sgd)])
    images = images.movedim(1, 2)  # [update, batch, view, ...]
    save(method, images=images, labels=labels, before=before, after=after, losses=logged)


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    for method in BRANCHES:
        run(method)
