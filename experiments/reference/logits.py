"""Two updates of methods on logits in PyTorch, float64, written from the equations: for a test.

Imports nothing of this project. Writes arrays before and after the updates, in this project's
layout and names, to tests/reference/update_<case>.npz. An update is an epoch.

  pip install torch==2.13.0 numpy
  python experiments/reference/logits.py
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from arrays import save, snapshot
from layers import CLASSES, Stages
from taught import frozen, norms
from torch import nn

STUDENT, PEER, TEACHER, OTHER = (3, 4, 5), (2, 3, 6), (4, 5, 6), (2, 4, 7)


class Case(NamedTuple):
    method: str
    seed: int
    teachers: tuple = (TEACHER,)
    peers: tuple = ()  # networks that train beside the first one


CASES = {
    "lskd": Case("lskd", 200, (TEACHER, OTHER)),
    "lskd_dml": Case("lskd_dml", 201, (), (PEER,)),
    "dkd": Case("dkd", 202, (TEACHER, OTHER)),
    "dist": Case("dist", 203),
    "ctkd": Case("ctkd", 204),
    "ensemble_kd": Case("ensemble_kd", 205, (TEACHER, OTHER)),
    "ensemble_kd_mean": Case("ensemble_kd_mean", 206, (TEACHER, OTHER)),
    "mixed": Case("mixed", 207, (TEACHER,), (PEER,)),
    # With these seeds the second network, the teacher, pauses in the second update alone, or in
    # the first alone; of the three in the last case, at different times.
    "switokd": Case("switokd", 0, (), (PEER,)),
    "switokd_at_first": Case("switokd", 0, (), (PEER,)),
    "switokd_three": Case("switokd", 0, (), (PEER, OTHER)),
}
PAUSES = {
    "switokd": [[False], [True]],
    "switokd_at_first": [[True], [False]],
    "switokd_three": [[False, True], [True, False]],
}


class Temperature(nn.Module):
    """A number whose gradient is turned round and scaled."""

    def __init__(self):
        super().__init__()
        self.number = nn.Parameter(torch.ones(()))

    def forward(self, factor):
        number = self.number.clone()
        number.register_hook(lambda gradient: factor * gradient)
        return 1 + 20 * torch.sigmoid(number)


class Gate(nn.Module):
    """A weight for each teacher from the logits of all of them."""

    def __init__(self, teachers):
        super().__init__()
        self.linear1 = nn.Linear(teachers * CLASSES, teachers)

    def forward(self, targets):
        return F.softmax(self.linear1(torch.cat(targets, 1)), 1)


def mixture(weights, targets, temperature):
    """Probabilities, a teacher at a time."""
    return sum(w[:, None] * F.softmax(t / temperature, 1) for w, t in zip(weights.T, targets))


def kl_from(z, probabilities, temperature):
    """Batch mean, with T²."""
    ratio = (probabilities / F.softmax(z / temperature, 1)).log()
    return temperature**2 * (probabilities * ratio).sum(1).mean()


def kl(z, target, temperature):
    """Batch mean, with T²."""
    p, q = F.log_softmax(z / temperature, 1), F.softmax(target / temperature, 1)
    return temperature**2 * F.kl_div(p, q, reduction="batchmean")


def z_score(z):
    return (z - z.mean(1, keepdim=True)) / (1e-7 + z.std(1, keepdim=True))


def target_and_others(z, target, y):
    """Of the probabilities themselves, an image at a time."""
    label, others = [], []
    for row, goal, c in zip(z / 4, target / 4, y):
        rest = torch.arange(CLASSES) != c
        p, q = F.softmax(row, 0), F.softmax(goal, 0)
        b, b_t = (torch.stack([x[c], x[rest].sum()]) for x in (p, q))
        label.append((b_t * (b_t / b).log()).sum())
        p, q = p[rest] / p[rest].sum(), q[rest] / q[rest].sum()
        others.append((q * (q / p).log()).sum())
    return 16 * torch.stack(label).mean(), 16 * torch.stack(others).mean()


def uncorrelated(p, q):
    """One minus the correlation of each row, from their standard deviations."""
    covariance = ((p - p.mean(1, True)) * (q - q.mean(1, True))).mean(1)
    spread = p.std(1, correction=0) * q.std(1, correction=0)
    return 1 - (covariance / (spread + 1e-8 / p.shape[1])).mean()


def mean(values):
    return sum(values) / len(values)


def terms(method, z, y, targets, epoch, head):
    """The losses of one network; epochs count from 1."""
    entropy = F.cross_entropy(z, y)
    targets = [target.detach() for target in targets]
    if method == "lskd":
        soft = [kl(z_score(z), z_score(target), 2.0) for target in targets]
        return {"cross_entropy": 0.1 * entropy, "distillation": 9 * mean(soft)}
    if method == "lskd_dml":
        soft = [kl(z_score(z), z_score(target), 1.0) for target in targets]
        return {"cross_entropy": entropy, "distillation": mean(soft)}
    if method == "dkd":
        label, others = zip(*[target_and_others(z, target, y) for target in targets])
        rise = min(epoch / 20, 1)
        return {
            "cross_entropy": entropy,
            "target_class": rise * mean(label),
            "other_classes": 8 * rise * mean(others),
        }
    if method == "dist":
        p, q = F.softmax(z / 4, 1), F.softmax(targets[0] / 4, 1)
        return {
            "cross_entropy": entropy,
            "inter_class": 2 * 16 * uncorrelated(p, q),
            "intra_class": 2 * 16 * uncorrelated(p.T, q.T),
        }
    if method == "ctkd":
        factor = -(1 - math.cos(math.pi * min(epoch / 10, 1))) / 2
        soft = kl(z, targets[0], head(factor))
        return {"cross_entropy": 0.1 * entropy, "distillation": 0.9 * soft}
    if method == "ensemble_kd":
        weights = head(targets)
        target = mixture(weights.detach(), targets, 4.0)
        chosen = mixture(weights, targets, 1.0)[torch.arange(len(y)), y]
        return {
            "cross_entropy": 0.1 * entropy,
            "distillation": 0.9 * kl_from(z, target, 4.0),
            "gate": -chosen.log().mean(),
        }
    if method == "ensemble_kd_mean":
        even = torch.full((len(y), len(targets)), 1 / len(targets))
        target = mixture(even, [z_score(t) for t in targets], 2.0)
        return {"cross_entropy": entropy, "distillation": 9 * kl_from(z_score(z), target, 2.0)}
    soft = [kl(z, target, 1.0) for target in targets]
    return {"cross_entropy": entropy, "distillation": mean(soft)}


def mixed(z, y, peers, given):
    """Both learn from each other (DML), and the first from the teacher, too (KD)."""
    found = {"cross_entropy": F.cross_entropy(z, y)}
    found["dml_distillation"] = mean([kl(z, peer.detach(), 1.0) for peer in peers])
    if given:
        found["kd_distillation"] = 0.9 * mean([kl(z, target, 4.0) for target in given])
    return found


def too_far_ahead(z_teacher, z_student, y):
    """SwitOKD's switch."""
    t, s, one_hot = F.softmax(z_teacher, 1), F.softmax(z_student, 1), F.one_hot(y, CLASSES)
    ahead, behind, gap = (
        (a - b).abs().sum(1).mean() for a, b in ((t, one_hot), (s, one_hot), (s, t))
    )
    threshold = behind - torch.exp(-ahead / (behind + ahead)) * ahead
    return bool(gap > threshold and ahead < behind)


def run(name, seed):
    """Arrays and losses of a case, and which of the later networks paused in each update."""
    case = CASES[name]
    torch.manual_seed(seed)
    teachers = [frozen(Stages(widths)) for widths in case.teachers]
    for norm in (norm for teacher in teachers for norm in norms(teacher)):
        norm.mean = 0.3 * torch.randn(norm.mean.shape)
        norm.var = 0.5 + torch.rand(len(norm.var))
    networks = [Stages(widths) for widths in (STUDENT, *case.peers)]
    head = {"ctkd": Temperature, "ensemble_kd": lambda: Gate(len(teachers))}.get(case.method)
    head = head() if head else nn.Module()
    images, labels = torch.randn(2, 6, 2, 8, 8), torch.randint(CLASSES, (2, 6))
    if case.method == "switokd":  # one network is better than the others at first
        for network in networks:
            network.classifier.weight.data *= 4 * torch.rand(())

    roles = {f"{k}/network": network for k, network in enumerate(networks)}
    roles[f"0/{type(head).__name__.lower()}"] = head
    fixed = {f"{len(networks) + j}/network": teacher for j, teacher in enumerate(teachers)}
    moved = [[*network.parameters()] for network in networks]
    moved[0] += [*head.parameters()]
    optimizers = [torch.optim.SGD(own, lr=0.1, momentum=0.9, weight_decay=1e-3) for own in moved]
    before, logged, pauses = snapshot({**roles, **fixed}, []), {}, []
    for t, (x, y) in enumerate(zip(images, labels)):
        logits = [network(x)[0] for network in networks]
        given = [teacher(x)[0] for teacher in teachers]
        losses = []
        for k, z in enumerate(logits):
            peers = [other for j, other in enumerate(logits) if j != k]
            if case.method == "mixed":
                losses.append(mixed(z, y, peers, given if k == 0 else []))
            else:
                losses.append(terms(case.method, z, y, given or peers, t + 1, head))
        gradients = [
            torch.autograd.grad(sum(own.values()), parameters, retain_graph=True)
            for own, parameters in zip(losses, moved)
        ]
        switch = case.method == "switokd"
        pauses.append([switch and too_far_ahead(z, logits[0], y) for z in logits[1:]])
        for k, optimizer in enumerate(optimizers):
            if k and pauses[-1][k - 1]:
                continue
            for p, g in zip(moved[k], gradients[k]):
                p.grad = g
            optimizer.step()
        for k, own in enumerate(losses):
            for term, value in own.items():
                logged.setdefault(f"{k}/{term}", []).append(value.item())
    after = snapshot(roles, [("logit", optimizer) for optimizer in optimizers])
    found = {"images": images, "labels": labels, "before": before, "after": after}
    return {**found, "losses": logged}, pauses


def main():
    torch.set_default_dtype(torch.float64)
    for name, case in CASES.items():
        seed = case.seed
        arrays, pauses = run(name, seed)
        while name in PAUSES and pauses != PAUSES[name]:
            seed += 1
            arrays, pauses = run(name, seed)
        if name in PAUSES:
            arrays["pauses"] = torch.tensor(pauses)
        save(name, **arrays)


if __name__ == "__main__":
    main()
