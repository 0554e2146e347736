"""Values and gradients of every loss in PyTorch, float64: numbers for a test.

Imports nothing of this project; writes tests/reference/losses.json.

  pip install torch==2.13.0
  python experiments/reference/losses.py
"""

import json
import pathlib

import torch
import torch.nn.functional as F

FILE = pathlib.Path(__file__).parents[2] / "tests" / "reference" / "losses.json"
BATCH, CLASSES = 4, 6


def kl(temperature, squared):
    def loss(z, target):
        p, q = F.log_softmax(z / temperature, 1), F.softmax(target / temperature, 1)
        return F.kl_div(p, q, reduction="none").sum(1) * (temperature**2 if squared else 1)

    return loss


def flat_mean(x):
    return x.flatten(1).mean(1)


def unit(x):
    return F.normalize(x.flatten(1))


def attention(x):
    return unit((x**2).mean(-1))


def bce(score, real):
    target = torch.full_like(score, float(real))
    return F.binary_cross_entropy_with_logits(score, target, reduction="none")


def correlation(a, b):
    """From covariance and deviations; the deviations are without the factor of the norms."""
    covariance = ((a - a.mean(1, True)) * (b - b.mean(1, True))).mean(1)
    return 1 - covariance / (a.std(1, correction=0) * b.std(1, correction=0) + 1e-8 / a.shape[1])


def label_and_rest(z, target, labels, temperature):
    """Divergences of probabilities: of the label's against the rest, and among the rest."""
    p, q = F.softmax(z / temperature, 1), F.softmax(target / temperature, 1)
    hit = F.one_hot(labels, CLASSES).bool()
    two = [torch.stack([x[hit], x[~hit].view(BATCH, -1).sum(1)], 1) for x in (p, q)]
    rest = [x[~hit].view(BATCH, -1) / (1 - x[hit])[:, None] for x in (p, q)]
    return [temperature**2 * (q * (q / p).log()).sum(1) for p, q in (two, rest)]


def pyramid(a, b):
    """ReviewKD's; [batch, height, width, channels]."""
    a, b = a.movedim(-1, 1), b.movedim(-1, 1)
    parts = [flat_mean((a - b) ** 2)]
    for size in (4, 2, 1):
        if size < a.shape[2]:
            small = [F.adaptive_avg_pool2d(x, size) for x in (a, b)]
            parts.append(flat_mean((small[0] - small[1]) ** 2))
    weights = [0.5**n for n in range(len(parts))]
    return sum(w * part for w, part in zip(weights, parts)) / sum(weights)


LOGITS, MAPS, SCORES = (BATCH, CLASSES), (BATCH, 3, 3, 2), (BATCH,)
# name: (function, keyword arguments of ours, shape of the inputs, number of inputs)
CASES = {
    "distillation_kl": [
        (kl(3.0, True), {"temperature": 3.0}, LOGITS, 2),
        (kl(1.0, True), {}, LOGITS, 2),
        (kl(2.0, False), {"temperature": 2.0, "scale_by_t_squared": False}, LOGITS, 2),
    ],
    "l1_alignment": [(lambda a, b: flat_mean((a - b).abs()), {}, MAPS, 2)],
    "l2_alignment": [(lambda a, b: flat_mean((a - b) ** 2), {}, MAPS, 2)],
    "cosine_distance": [
        (lambda a, b: 1 - F.cosine_similarity(a.flatten(1), b.flatten(1)), {}, MAPS, 2)
    ],
    "normalized_l1_alignment": [(lambda a, b: (unit(a) - unit(b)).abs().sum(1), {}, MAPS, 2)],
    "attention_alignment": [
        (lambda a, b: ((attention(a) - attention(b)) ** 2).mean(1), {}, MAPS, 2)
    ],
    "pyramid_alignment": [
        (pyramid, {}, MAPS, 2),
        (pyramid, {}, (BATCH, 6, 6, 2), 2),
    ],
    "soft_cross_entropy": [(lambda z, q: -(q * F.log_softmax(z, 1)).sum(1), {}, LOGITS, 2)],
    "least_squares_discriminator": [(lambda r, f: (1 - r) ** 2 + f**2, {}, SCORES, 2)],
    "least_squares_generator": [(lambda f: (1 - f) ** 2, {}, SCORES, 1)],
    "bce_discriminator": [(lambda r, f: bce(r, 1) + bce(f, 0), {}, SCORES, 2)],
    "bce_generator": [(lambda f: bce(f, 1), {}, SCORES, 1)],
    "hinge_discriminator": [(lambda r, f: F.relu(1 - r) + F.relu(1 + f), {}, SCORES, 2)],
    "hinge_generator": [(lambda f: -f, {}, SCORES, 1)],
    "wasserstein_discriminator": [(lambda r, f: f - r, {}, SCORES, 2)],
    "wasserstein_generator": [(lambda f: -f, {}, SCORES, 1)],
}


def main():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    records = []
    for name, cases in CASES.items():
        for function, options, shape, count in cases:
            inputs = [2 * torch.randn(shape, requires_grad=True) for _ in range(count)]
            records.append(record(name, options, inputs, function(*inputs)))
    labels = torch.tensor([0, 5, 2, 2])
    for smoothing in (0.0, 0.1):
        z = 2 * torch.randn(LOGITS, requires_grad=True)
        values = F.cross_entropy(z, labels, reduction="none", label_smoothing=smoothing)
        options = {"label_smoothing": smoothing}
        records.append(record("cross_entropy", options, [z], values) | {"labels": labels.tolist()})
    maps = torch.randn(1, 2, 8, 6)
    resized = F.interpolate(maps, (4, 3), mode="bilinear", antialias=True)
    resize = {"maps": maps[0].tolist(), "resized": resized[0].tolist()}
    a, b = (2 * torch.randn(LOGITS, requires_grad=True) for _ in range(2))
    records.append(record("correlation_distance", {}, [a, b], correlation(a, b)))
    for temperature in (1.0, 4.0):
        values = label_and_rest(a, b, labels, temperature)
        for name, own in zip(("target_class_kl", "other_classes_kl"), values):
            found = record(name, {"temperature": temperature}, [a, b], own)
            records.append(found | {"labels": labels.tolist()})
    weights = torch.arange(1.0, 1 + BATCH * CLASSES).view(LOGITS)
    scored = (a - a.mean(1, True)) / (1e-7 + a.std(1, keepdim=True))
    (gradient,) = torch.autograd.grad((weights * scored).sum(), a)
    score = {"logits": a.tolist(), "values": scored.tolist(), "gradient": gradient.tolist()}
    found = {"losses": records, "resize": resize, "standardize": score}
    FILE.write_text(json.dumps(found) + "\n")
    print(f"{len(records)} cases in {FILE.name}")


def record(name, options, inputs, values):
    # Unequal weights, so that a gradient that lands on the wrong example shows.
    weights = torch.arange(1.0, BATCH + 1)
    total = (values * weights).sum()
    gradients = torch.autograd.grad(total, inputs, retain_graph=True)
    return {
        "name": name,
        "options": options,
        "inputs": [x.tolist() for x in inputs],
        "values": values.tolist(),
        "gradients": [g.tolist() for g in gradients],
    }


if __name__ == "__main__":
    main()
