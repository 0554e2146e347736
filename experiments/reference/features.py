"""Two updates of methods on a frozen teacher's maps in PyTorch, float64: for a test.

Written from the papers' equations; imports nothing of this project. Writes arrays before and after
the updates, in this project's layout and names, to tests/reference/update_<case>.npz.

  pip install torch==2.13.0 numpy
  python experiments/reference/features.py [CASE ...]
"""

import itertools
import sys
from typing import NamedTuple

import torch
import torch.nn.functional as F
from arrays import save, snapshot
from layers import Layer, Norm, Stages, conv
from taught import OTHER, STUDENT, TEACHER, divergence, frozen, norms, with_kd
from torch import nn


class Case(NamedTuple):
    teachers: tuple = (TEACHER,)
    kd: tuple = ()  # temperature and the weights of labels and predictions


CASES = {
    "sp": Case((TEACHER, OTHER)),
    "rkd": Case(),
    "pkt": Case(),
    "vid": Case((TEACHER, OTHER), (4.0, 0.1, 0.9)),
    "reviewkd": Case((TEACHER, OTHER)),
    "mgd": Case((TEACHER, (2, 4, 5))),
    "crd": Case(),
    "block_kd": Case((TEACHER, OTHER), (4.0, 1.0, 1.0)),
}


def pooled(maps):
    return maps[-1].mean((2, 3))


def pairs(count):
    return itertools.product(range(count), repeat=2)


def similarity(own, target):
    def normal(maps):
        flat = maps[-1].flatten(1)
        products = flat @ flat.T
        return products / products.norm(dim=1, keepdim=True)

    return 3000 * ((normal(own) - normal(target)) ** 2).mean()


def distance(own, target):
    """Pair by pair, as the paper has it."""

    def normal(x):
        d = [(x[i] - x[j]).norm() for i, j in pairs(len(x)) if i != j]
        return torch.stack(d) / (sum(d) / len(d))

    apart = F.smooth_l1_loss(normal(pooled(own)), normal(pooled(target)), reduction="sum")
    return 25 * apart / len(own[0]) ** 2


def angle(own, target):
    """Triple by triple; two of three examples that are the same have no angle."""

    def cosines(x):
        zero = torch.zeros(())
        found = []
        for i in range(len(x)):
            for j, k in pairs(len(x)):
                a, b = x[j] - x[i], x[k] - x[i]
                found.append((a @ b) / (a.norm() * b.norm()) if i not in (j, k) else zero)
        return torch.stack(found)

    return 50 * F.smooth_l1_loss(cosines(pooled(own)), cosines(pooled(target)))


def neighbours(own, target):
    def probabilities(x):
        cosine = F.cosine_similarity(x[:, None], x[None], dim=2)
        return (cosine + 1) / (cosine + 1).sum(1, keepdim=True)

    p, q = probabilities(pooled(own)), probabilities(pooled(target))
    return 30000 * (q * torch.log((q + 1e-7) / (p + 1e-7))).mean()


class Gaussian(nn.Module):
    """VID's regressor and its variances."""

    def __init__(self, before, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(before, channels, 1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 1, bias=False)
        self.conv3 = nn.Conv2d(channels, channels, 1, bias=False)
        self.log_scale = nn.Parameter(1 + torch.randn(channels))

    def forward(self, x, target):
        mean = self.conv3(F.relu(self.conv2(F.relu(self.conv1(x)))))
        variance = (F.softplus(self.log_scale) + 1e-5)[:, None, None].expand_as(mean)
        return F.gaussian_nll_loss(mean, target, variance, eps=0)


class Review(nn.Module):
    """From the deepest of a student's maps up, to the widths of a teacher's."""

    def __init__(self, before, after):
        super().__init__()
        width, levels = before[-1], len(before)
        for n in range(levels):
            setattr(self, f"reduce{n + 1}", conv(before[n], width, 1))
            setattr(self, f"reduce{n + 1}_norm", Norm(width))
            setattr(self, f"expand{n + 1}", conv(width, after[n], 3))
            setattr(self, f"expand{n + 1}_norm", Norm(after[n]))
            if n + 1 < levels:
                setattr(self, f"weigh{n + 1}", nn.Conv2d(2 * width, 2, 1))

    def forward(self, maps):
        part, found, below = self.__getattr__, [], None
        for n in range(len(maps), 0, -1):
            x = part(f"reduce{n}_norm")(part(f"reduce{n}")(maps[n - 1]))
            if below is not None:
                below = F.interpolate(below, x.shape[2:], mode="nearest")
                shares = torch.sigmoid(part(f"weigh{n}")(torch.cat([x, below], 1)))
                x = x * shares[:, 0:1] + below * shares[:, 1:2]
            below = x
            found = [part(f"expand{n}_norm")(part(f"expand{n}")(x)), *found]
        return found


def pyramid(own, target):
    total, weights = 0, []
    for size in (own.shape[2], 4, 2, 1):
        if size < own.shape[2] or not weights:
            a, b = (F.adaptive_avg_pool2d(x, size) for x in (own, target))
            weights.append(0.5 ** len(weights))
            total = total + weights[-1] * F.mse_loss(a, b)
    return total / sum(weights)


class Masked(nn.Module):
    """MGD's two convolutions, on a map without some of its channels."""

    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x, kept):
        return self.conv2(F.relu(self.conv1(x * kept[:, :, None, None])))


class Align(nn.Module):
    def __init__(self, before, after):
        super().__init__()
        self.conv = nn.Conv2d(before, after, 1)

    def forward(self, x):
        return self.conv(x)


def generation(own, target, heads, kept):
    x = heads["align_"](own) if "align_" in heads else own
    made = heads["generate_"](x, kept[:, : x.shape[1]])
    return 0.02 * F.mse_loss(made, target, reduction="sum") / len(own)


def stones(z, maps, teacher, x, heads):
    """By stage, what the teacher makes of the student's map there, beside both predictions."""
    target, losses = teacher(x)[0], {}
    for stage in (1, 2, 3):
        y = heads[f"connect{stage}_"](maps[stage - 1])
        for later in range(stage + 1, 4):
            y = getattr(teacher, f"stage{later}")(y)
        stone = teacher.classifier(y.mean((2, 3)))
        apart = divergence(stone, target, 4.0) + divergence(z, stone, 4.0)
        losses[f"stone{stage}"] = apart * {1: 0.25, 2: 0.5, 3: 1.0}[stage]
    return losses


EXAMPLES, NEGATIVES, SIZE = 8, 5, 4
INDICES = torch.tensor([[0, 1, 2, 3, 4, 5], [3, 0, 6, 5, 1, 2]])


class Linear(nn.Module):
    def __init__(self, before):
        super().__init__()
        self.linear1 = nn.Linear(before, SIZE)

    def forward(self, x):
        x = self.linear1(x)
        return x / x.norm(dim=1, keepdim=True)


class Bank:
    """CRD's memory; it begins with zeros here."""

    def __init__(self):
        self.rows = {side: torch.zeros(EXAMPLES, SIZE) for side in ("student", "teacher")}
        self.z = {}

    def contrast(self, vectors, index, others):
        """The loss of both sides, example by example and term by term; then the update."""
        losses = []
        for side, other in (("student", "teacher"), ("teacher", "student")):
            picked = self.rows[other][torch.cat([index[:, None], others], 1)]
            raw = torch.exp((picked * vectors[side][:, None]).sum(2) / 0.07)
            self.z.setdefault(side, raw.mean().item() * EXAMPLES)
            p, noise = raw / self.z[side], NEGATIVES / EXAMPLES
            hit = torch.log(p[:, 0] / (p[:, 0] + noise + 1e-7))
            miss = torch.log(noise / (p[:, 1:] + noise + 1e-7))
            losses.append(-(hit.sum() + miss.sum()) / len(index))
        for side, rows in self.rows.items():
            moved = 0.5 * rows[index] + 0.5 * vectors[side].detach()
            rows[index] = moved / moved.norm(dim=1, keepdim=True)
        return 0.8 * sum(losses)


def make_heads(name, teachers):
    """By teacher, counted from 1, and name."""
    heads = {}
    for t, widths in enumerate(teachers, 1):
        if name == "vid":
            for n in range(3):
                heads[t, f"pair{n + 1}_"] = Gaussian(STUDENT[n], widths[n])
        if name == "block_kd":
            for n in range(3):
                heads[t, f"connect{n + 1}_"] = Layer(STUDENT[n], widths[n], kernel=1)
        if name == "crd":
            heads["", "embed_student"] = Linear(STUDENT[2])
            heads["", "embed_teacher"] = Linear(widths[2])
        if name == "mgd":
            heads[t, "generate_"] = Masked(widths[2])
            if widths[2] != STUDENT[2]:
                heads[t, "align_"] = Align(STUDENT[2], widths[2])
        if name == "reviewkd":
            own, target = ((*w, w[-1]) for w in (STUDENT, widths))
            heads[t, "review_"] = Review(own, target)
    return heads


def terms(name, maps, taught, heads, epoch, kept):
    """What the student learns of one teacher."""
    if name == "sp":
        return {"similarity": similarity(maps, taught)}
    if name == "rkd":
        return {"distance": distance(maps, taught), "angle": angle(maps, taught)}
    if name == "pkt":
        return {"neighbours": neighbours(maps, taught)}
    if name == "mgd":
        return {"generation": generation(maps[2], taught[2], heads, kept)}
    if name == "reviewkd":
        ours, theirs = ([*b, pooled(m)[:, :, None, None]] for b, m in (maps, taught))
        apart = [pyramid(a, b) for a, b in zip(heads["review_"](ours), theirs)]
        return {"review": min(1, epoch / 20) * sum(apart)}
    each = [heads[f"pair{n}_"](*pair) for n, pair in enumerate(zip(maps, taught), 1)]
    return {"information": sum(each)}


def run(name):
    case = CASES[name]
    torch.manual_seed(200 + list(CASES).index(name))
    teachers = [frozen(Stages(widths)) for widths in case.teachers]
    for norm in itertools.chain(*map(norms, teachers)):
        norm.mean = 0.3 * torch.randn(norm.mean.shape)
        norm.var = 0.5 + torch.rand(len(norm.var))
    net, heads = Stages(STUDENT), make_heads(name, case.teachers)
    roles = {"0/network": net}
    roles |= {f"0/{n}from_{t}" if t else f"0/{n}": head for (t, n), head in heads.items()}
    fixed = {f"{t}/network": teacher for t, teacher in enumerate(teachers, 1)}
    moved = [p for module in roles.values() for p in module.parameters()]
    sgd = torch.optim.SGD(moved, lr=0.1, momentum=0.9, weight_decay=1e-3)
    images, labels = torch.randn(2, 6, 2, 8, 8), torch.randint(5, (2, 6))
    bank, others = Bank(), torch.randint(EXAMPLES, (2, 6, NEGATIVES))
    kept = (torch.rand(2, 6, 8) > 0.3).double()  # at most so many channels, the same for all
    before, logged = snapshot({**fixed, **roles}, []), {}
    for epoch, (x, y) in enumerate(zip(images, labels)):
        z, maps = net(x)
        losses = {"cross_entropy": F.cross_entropy(z, y)}
        if case.kd:
            losses = with_kd(z, y, [teacher(x)[0] for teacher in teachers], *case.kd)
        for t, teacher in enumerate(teachers, 1):
            own = {n: head for (of, n), head in heads.items() if of in (t, "")}
            if name == "crd":
                features = {"student": pooled(maps), "teacher": pooled(teacher(x)[1])}
                vectors = {side: own[f"embed_{side}"](f) for side, f in features.items()}
                losses["contrast"] = bank.contrast(vectors, INDICES[epoch], others[epoch])
                continue
            if name == "block_kd":
                each = stones(z, maps, teacher, x, own)
            else:
                pair = maps, teacher(x)[1]
                if name == "reviewkd":
                    pair = (maps, maps), (teacher.preactivations(), pair[1])
                each = terms(name, *pair, own, epoch, kept[epoch])
            for term, value in each.items():
                losses[term] = losses.get(term, 0) + value / len(teachers)
        sgd.zero_grad()
        sum(losses.values()).backward()
        sgd.step()
        for term, value in losses.items():
            logged.setdefault(f"0/{term}", []).append(value.item())
    after = snapshot(roles, [("logit", sgd)])
    more = {"kept": kept} if name == "mgd" else {}
    if name == "crd":
        more = {"others": others, "indices": INDICES}
        more |= {f"bank_{side}": rows for side, rows in bank.rows.items()}
    save(name, images=images, labels=labels, before=before, after=after, losses=logged, **more)


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    for name in sys.argv[1:] or CASES:
        run(name)
