"""Loads a network out of its run and compares it with its export: python use_run.py RUN NAME."""

import sys

import numpy as np

import afd_jax as afd


def main(run: str, name: str) -> None:
    """Fails if they differ."""
    reference = np.load(f"{name}/reference.npz")
    probabilities = afd.load(run, name, trust=True)(reference["images"]).probabilities
    difference = np.abs(probabilities - reference["probabilities"]).max()
    print(f"afd.load: {probabilities.shape}, difference from the export {difference:.1e}")
    assert difference < 1e-5


if __name__ == "__main__":
    main(*sys.argv[1:])
