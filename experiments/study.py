"""Trains what a study lacks."""

import pathlib
import sys

from experiments.studies import load
from experiments.studies.records import Results
from experiments.studies.runner import alone, train_missing

if __name__ == "__main__":
    name = sys.argv[1]
    hours = float(sys.argv[2])
    blocks = sys.argv[3] if len(sys.argv) > 3 else ""
    study = load(name)
    root = pathlib.Path("runs/studies") / name
    results = Results(pathlib.Path("experiments/results") / f"{name}.json", study)
    with alone(root, (1, 1)):
        train_missing(study, results, root, seconds=3600 * hours, blocks=blocks)
