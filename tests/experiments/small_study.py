"""A study of six steps, and records as of a run."""

import json
import re

from experiments.study.plan import Block, Setting, Study
from experiments.study.records import Results
from experiments.study.runner import train_missing

SVG = "<?xml"
PAIR = "tests.tiny:Tiny,tests.tiny:Wider"


def recipe(config, seed):
    """Six steps on digits."""
    config.data.name, config.data.limit, config.data.heldout = "digits", 64, 0.0
    config.data.mean, config.data.std = (0.3,), (0.4,)
    config.data.pad, config.data.pad_mode, config.data.flip = 1, "zero", False
    config.batch_size, config.eval_batch_size = 16, 64
    config.duration = "6 steps"
    config.log_every = config.checkpoint_every = "2 steps"
    config.eval_every = "3 steps"
    config.parallel.devices = 1
    config.optimizers.logit.schedule = {"name": "cosine"}


def study(*, seeds=(0, 1), own=recipe, **changes):
    """Of two networks alone, two together, and one that learns from one of the first two."""
    kd = Setting("KD", f"cifar100_kd:{PAIR}", teachers=("independent@Wider",))
    block = Block(
        "few steps",
        (
            Setting("independent", f"cifar100_independent:{PAIR}"),
            Setting("DML", f"cifar100_dml:{PAIR}", changes),
            kd,
        ),
        own,
        seeds=seeds,
    )
    return Study("Which one?", (block,))


def text_of(folder):
    """The JSON, but for the commit, which may be another by now."""
    return re.sub(r'"commit": "[^"]*"', "", (folder / "results.json").read_text())


def trained_in(folder, own, **options):
    results = Results(folder / "results.json", own)
    options = {"seconds": 3600, **options}
    return train_missing(own, results, folder / "runs", **options), results


def record(setting, seed, nodes, block="few steps", ensemble=0.5, role="student"):
    """As of a run; nodes are (network, accuracy) by name."""
    own = {n: {"network": w, "role": role, "accuracy": a} for n, (w, a) in nodes.items()}
    return {
        "block": block,
        "setting": setting,
        "seed": seed,
        "nodes": own,
        "ensemble_accuracy": ensemble,
        "curve": [],
    }


def names(jobs):
    return [str(job) for job in jobs]


def cells(markdown):
    """The rows of a table by heading, and what stands below it."""
    table, _, below = markdown.partition("\n\n")
    head, _, *lines = ([c.strip() for c in row.strip("|").split("|")] for row in table.split("\n"))
    return [dict(zip(head, line, strict=True)) for line in lines], below


def change(folder, name, **fields):
    content = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(content | fields))
