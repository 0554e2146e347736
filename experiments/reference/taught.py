"""Two updates with frozen teachers and of self-distillation in PyTorch, float64: for a test.

Written from the papers' equations; imports nothing of this project. Writes arrays before and after
the updates, in this project's layout and names, to tests/reference/update_<case>.npz.

  pip install torch==2.13.0 numpy
  python experiments/reference/taught.py
"""

import copy
import functools
import itertools
from typing import NamedTuple

import torch
import torch.nn.functional as F
from arrays import save, snapshot
from layers import CLASSES, Discriminator, Layer, Norm, Stages
from torch import nn

STUDENT, TEACHER, OTHER = (3, 4, 5), (4, 5, 6), (2, 4, 7)
EXAMPLES = 8
INDICES = torch.tensor([[0, 1, 2, 3, 4, 5], [3, 0, 6, 5, 1, 2]])  # number 6 is new to the second


class Case(NamedTuple):
    method: str
    teachers: tuple = (TEACHER,)
    numbers: tuple = ()  # what the method's equation leaves open


CASES = {
    "kd": Case("kd", numbers=(4.0, 0.1, 0.9)),
    "kd_two": Case("kd", (TEACHER, OTHER), (4.0, 0.1, 0.9)),
    "ban": Case("kd", (STUDENT,), (1.0, 1.0, 1.0)),
    "fitnet": Case("fitnet", (TEACHER, OTHER), (4.0, 0.1, 0.9)),
    "at": Case("at"),
    "ft": Case("ft"),
    "paraphraser": Case("paraphraser"),
    "feed_mean": Case("feed", (TEACHER, OTHER), (500.0,)),
    "feed_sum": Case("feed", (TEACHER, OTHER), (0.3,)),
    "ai_kd": Case("ai_kd", (STUDENT,), (2.0, 0.7, 0.6, 0.4)),
    "ai_kd_bce": Case("ai_kd", (STUDENT,), (1.0, 1.0, 1.0, 0.1)),
    "ps_kd": Case("ps_kd", ()),
    "cs_kd": Case("cs_kd", ()),
    "tf_kd_virtual": Case("tf_kd", ()),
    "tf_kd": Case("tf_kd", (STUDENT,)),
    "label_smoothing": Case("label_smoothing", ()),
    "afd_offline": Case("afd"),
    "alignment_offline": Case("alignment"),
}


class Convolutions(nn.Module):
    """3x3 with bias, each followed by LeakyReLU: FEED's layer and all parts of factor transfer."""

    def __init__(self, *widths):
        super().__init__()
        for i, (before, after) in enumerate(itertools.pairwise(widths)):
            setattr(self, f"conv{i + 1}", nn.Conv2d(before, after, 3, padding=1))

    def forward(self, x):
        for layer in self.children():
            x = F.leaky_relu(layer(x), 0.1)
        return x


class ProbabilityDiscriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(CLASSES, 4), nn.Linear(4, 6)
        self.score = nn.Linear(6, 1)

    def forward(self, p):
        h = F.leaky_relu(self.linear2(F.leaky_relu(self.linear1(p), 0.2)), 0.2)
        return self.score(h).flatten()


def frozen(network):
    """The network as in evaluation."""
    for norm in norms(network):
        norm.forward = functools.partial(evaluated, norm)
    return network.requires_grad_(False)


def evaluated(norm, x):
    return F.batch_norm(x, norm.mean, norm.var, norm.scale, norm.bias, eps=1e-5)


def norms(module):
    return [m for m in module.modules() if isinstance(m, Norm)]


def divergence(own, target, temperature):
    """T² KL(target || own), batch mean."""
    q = F.softmax(target.detach() / temperature, 1)
    p = F.softmax(own / temperature, 1)
    return temperature**2 * (q * torch.log(q / p)).sum(1).mean()


def with_kd(z, y, targets, temperature, label_weight, distillation_weight):
    kl = [divergence(z, target, temperature) for target in targets]
    return {
        "cross_entropy": label_weight * F.cross_entropy(z, y),
        "distillation": distillation_weight * sum(kl) / len(kl),
    }


def attention(x):
    return F.normalize(x.pow(2).mean(1).flatten(1))


def unit(x):
    return F.normalize(x.flatten(1))


def make_heads(case):
    """The student's layers, by role."""
    last = [widths[2] for widths in case.teachers]
    if case.method == "fitnet":
        layers = [Layer(STUDENT[1], widths[1], kernel=1) for widths in case.teachers]
    elif case.method == "feed":
        layers = [Convolutions(STUDENT[2], w, w, w) for w in last]
    elif case.method == "ft":
        layers = [Convolutions(STUDENT[2], STUDENT[2], last[0] // 2, last[0] // 2)]
    elif case.method in ("afd", "alignment"):
        return {"transfer": Layer(STUDENT[2], last[0], kernel=1)}
    else:
        layers = []
    return {f"from_{1 + j}": layer for j, layer in enumerate(layers)}


def terms(name, z, maps, y, taught, heads, **more):
    """The losses of the first update of the student."""
    case, entropy = CASES[name], F.cross_entropy(z, y)
    targets = [t for t, _ in taught]
    if case.method == "kd":
        return with_kd(z, y, targets, *case.numbers)
    if case.method == "fitnet":
        pairs = zip(heads.values(), taught)
        hint = [((head(maps[1]) - hidden[1]) ** 2).mean() for head, (_, hidden) in pairs]
        losses = with_kd(z, y, targets, *case.numbers)
        return {**losses, "hint": 100 * sum(hint) / len(hint)}
    if case.method == "at":
        each = [(attention(a) - attention(b)).pow(2).mean() for a, b in zip(maps, taught[0][1])]
        return {"cross_entropy": entropy, "attention": 1000 * sum(each)}
    if case.method == "ft":
        factor = more["encoder"](taught[0][1][2])
        apart = F.l1_loss(unit(heads["from_1"](maps[2])), unit(factor))
        return {"cross_entropy": entropy, "factor": 500 * apart}
    if case.method == "feed":
        pairs = zip(heads.values(), taught)
        apart = [(unit(hidden[2]) - unit(head(maps[2]))).abs() for head, (_, hidden) in pairs]
        measured = [a.mean() if name == "feed_mean" else a.sum(1).mean() for a in apart]
        return {"cross_entropy": entropy, "reconstruction": case.numbers[0] * sum(measured)}
    if case.method == "ai_kd":
        temperature, a, b, c = case.numbers
        score = more["critic"](F.softmax(z, 1))
        past = divergence(z, more["past"], temperature) if more["t"] else torch.zeros(())
        return {
            "cross_entropy": entropy,
            "distillation": a * divergence(z, targets[0], temperature),
            "progressive": b * past,
            "generator": c * passing(name, score),
        }
    if case.method == "ps_kd":
        weight = 0.8 * (more["t"] + 1) / 2
        target = (1 - weight) * F.one_hot(y, CLASSES) + weight * more["past"]
        return {"cross_entropy": -(target * F.log_softmax(z, 1)).sum(1).mean()}
    if case.method == "cs_kd":
        return {"cross_entropy": entropy, "distillation": divergence(z, more["past"], 4.0)}
    if case.method == "tf_kd":
        if targets:
            distilled = 0.475 * divergence(z, targets[0], 6.0)
            return {"cross_entropy": 0.05 * entropy, "distillation": distilled}
        virtual = torch.full((len(y), CLASSES), 0.01 / (CLASSES - 1))
        virtual[torch.arange(len(y)), y] = 0.99
        soft = F.softmax(virtual / 20, 1)
        distilled = F.kl_div(F.log_softmax(z, 1), soft, reduction="batchmean")
        return {"cross_entropy": 0.9 * entropy, "distillation": 0.1 * distilled}
    if case.method == "label_smoothing":
        return {"cross_entropy": F.cross_entropy(z, y, label_smoothing=0.1)}
    return {"cross_entropy": entropy, "distillation": divergence(z, targets[0], 3.0)}


def passing(name, score):
    """What the student pays for being told apart."""
    if name == "ai_kd_bce":
        return F.binary_cross_entropy_with_logits(score, torch.ones_like(score))
    return ((1 - torch.sigmoid(score)) ** 2).mean()


def telling(name, real, fake):
    """What the discriminator pays for its errors."""
    if name == "ai_kd_bce":
        ones, zeros = torch.ones_like(real), torch.zeros_like(fake)
        of_real = F.binary_cross_entropy_with_logits(real, ones)
        return of_real + F.binary_cross_entropy_with_logits(fake, zeros)
    return ((1 - torch.sigmoid(real)) ** 2 + torch.sigmoid(fake) ** 2).mean()


def run(name):
    case = CASES[name]
    torch.manual_seed(100 + list(CASES).index(name))
    teachers = []
    for widths in case.teachers:
        teachers.append(frozen(Stages(widths)))
        for norm in norms(teachers[-1]):
            norm.mean, norm.var = (
                0.3 * torch.randn(norm.mean.shape),
                0.5 + torch.rand(len(norm.var)),
            )
    images, labels = torch.randn(2, 6, 2, 8, 8), torch.randint(CLASSES, (2, 6))
    if case.method == "paraphraser":
        losses, before, after = paraphrase(teachers[0], images)
        more = {}
    else:
        losses, before, after, more = teach(name, teachers, images, labels)
    losses = {f"0/{term}": values for term, values in losses.items()}
    save(name, images=images, labels=labels, before=before, after=after, losses=losses, **more)


def paraphrase(teacher, images):
    channels = TEACHER[2]
    encoder = Convolutions(channels, channels, channels // 2, channels // 2)
    decoder = Convolutions(channels // 2, channels // 2, channels, channels)
    parameters = [*encoder.parameters(), *decoder.parameters()]
    sgd = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=1e-3)
    roles = {"0/encoder": encoder, "0/decoder": decoder}
    before = snapshot({"0/network": teacher, **roles}, [])
    losses = []
    for x in images:
        maps = teacher(x)[1][2]
        loss = F.l1_loss(decoder(encoder(maps)), maps)
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        losses.append(loss.item())
    return {"reconstruction": losses}, before, snapshot(roles, [("logit", sgd)])


def teach(name, teachers, images, labels):
    case, data = CASES[name], {}
    net, heads = Stages(STUDENT), make_heads(case)
    roles = {"0/network": net} | {f"0/{role}": head for role, head in heads.items()}
    fixed, copied, more = {}, None, {}
    if case.method in ("ai_kd", "cs_kd"):
        copied = copy.deepcopy(net)
        roles["1/network"] = copied
    if case.method == "ai_kd":
        frozen(copied)
        critic = roles["0/discriminator"] = more["critic"] = ProbabilityDiscriminator()
    if case.method == "afd":
        critic = roles["0/discriminator"] = Discriminator(case.teachers[0][2])
    for j, teacher in enumerate(teachers):
        fixed[f"{j + (2 if copied else 1)}/network"] = teacher
    if case.method == "ft":
        widths = case.teachers[0][2]
        encoder = Convolutions(widths, widths, widths // 2, widths // 2).requires_grad_(False)
        fixed["1/encoder"] = more["encoder"] = encoder
    offline = case.method in ("afd", "alignment")
    by_logits = [*net.parameters()]
    if not offline:
        by_logits += [p for head in heads.values() for p in head.parameters()]
    sgd = torch.optim.SGD(by_logits, lr=0.1, momentum=0.9, weight_decay=1e-3)
    optimizers = {"logit": sgd}
    if offline:
        by_maps = [p for n, p in net.named_parameters() if not n.startswith("classifier")]
        by_maps += [*heads["transfer"].parameters()]
        optimizers["feature"] = torch.optim.Adam(by_maps, lr=1e-2, weight_decay=0.1)
    if "0/discriminator" in roles:
        critics = [*critic.parameters()]
        optimizers["discriminator"] = torch.optim.Adam(critics, lr=1e-2, weight_decay=0.1)
    if case.method == "cs_kd":
        partners = torch.randn_like(images)
        data["partner_images"] = partners.movedim(-3, -1)
    if case.method == "ps_kd":
        data["indices"] = INDICES
        seen = torch.zeros(EXAMPLES, dtype=torch.bool)
        predictions = torch.zeros(EXAMPLES, CLASSES)
    before, logged = snapshot({**fixed, **roles}, []), []
    for t, (x, y) in enumerate(zip(images, labels)):
        z, maps = net(x)
        with torch.no_grad():
            taught = [teacher(x) for teacher in teachers]
            if case.method == "ai_kd":
                more["past"], _ = copied(x)
            elif case.method == "cs_kd":
                more["past"], _ = copied(partners[t])
            elif case.method == "ps_kd":
                i = INDICES[t]
                known = predictions[i]
                more["past"] = torch.where(seen[i][:, None], known, F.one_hot(y, CLASSES))
                predictions[i], seen[i] = F.softmax(z, 1), True
        losses = terms(name, z, maps, y, taught, heads, t=t, **more)
        logit_loss, feature_loss, critic_loss = sum(losses.values()), None, None
        if offline:
            own, target = heads["transfer"](maps[2]), taught[0][1][2]
        if case.method == "alignment":
            feature_loss = losses["alignment"] = (own - target).abs().mean()
        if case.method == "afd":
            feature_loss = losses["generator"] = ((1 - critic(own, False)) ** 2).mean()
            real, fake = critic(target, True), critic(own.detach(), True)
            critic_loss = losses["discriminator"] = ((1 - real) ** 2 + fake**2).mean()
        if case.method == "ai_kd":
            real, fake = (critic(F.softmax(a.detach(), 1)) for a in (taught[0][0], z))
            critic_loss = losses["discriminator"] = telling(name, real, fake)
        # All gradients are taken at the same parameters, and applied afterwards.
        pairs = zip(
            optimizers, [v for v in (logit_loss, feature_loss, critic_loss) if v is not None]
        )
        gradients = {
            update: torch.autograd.grad(
                loss, optimizers[update].param_groups[0]["params"], retain_graph=True
            )
            for update, loss in pairs
        }
        for update, optimizer in optimizers.items():
            for p, g in zip(optimizer.param_groups[0]["params"], gradients[update]):
                p.grad = g
            optimizer.step()
        if copied:
            copied.load_state_dict(net.state_dict())
            if case.method == "ai_kd":
                for old, new in zip(norms(copied), norms(net)):
                    old.mean, old.var = new.mean, new.var
        logged.append({n: v.item() for n, v in losses.items()})
    if case.method == "ps_kd":
        data["predictions"] = predictions[None]
    after = snapshot(roles, optimizers.items())
    losses = {n: [entry[n] for entry in logged] for n in logged[0]}
    return losses, before, after, data


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    for name in CASES:
        run(name)
