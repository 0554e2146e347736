"""What learning together brought, seed by seed: in summary, table and picture."""

import json
import re

import numpy as np
import pytest
from scipy import stats

from afd_jax.reports.curves import plot_curves
from afd_jax.reports.summary import summarise
from afd_jax.reports.terminal import table

TOGETHER, ALONE = (0.9, 0.8, 0.95), (0.85, 0.82, 0.9)
NODES = [
    {"name": name, "network": name, "role": role, "of": of, "parameters": 10}
    for name, role, of in (
        ("a", "student", None),
        ("b", "student", None),
        ("a alone", "twin", "a"),
        ("b alone", "twin", "b"),
    )
]
FACTS = {"method": "AFD", "nodes": NODES, "edges": [["a", "b"], ["b", "a"]]}


def records(seeds):
    found = []
    for step in (1, 2):
        for seed in seeds:
            own = {"step": step, "epoch": float(step), "seed": seed}
            a, twin = (values[seed] - 0.1 * (2 - step) for values in (TOGETHER, ALONE))
            accuracy = {"a": a, "b": 0.7, "a alone": twin, "b alone": 0.6 + 0.01 * seed}
            alike = {"a, b": {"cka": 0.9}, "a alone, b alone": {"cka": 0.5}}
            ensembles = {"ensemble_accuracy": 0.9, "twin_ensemble_accuracy": 0.9}
            found.append({"kind": "test", **own, "accuracy": accuracy, **ensembles})
            found[-1]["similarity"] = alike
            terms = {"a/real_accuracy": 0.5, "a/fake_accuracy": 0.6}
            terms |= {"a/loss/cross_entropy": 1.0, "a/loss/generator": 0.2}
            found.append({"kind": "train", **own, **terms})
    return found


def summary(seeds):
    times = {"compile_seconds": 1.0, "train_seconds": 1.0, "timed_steps": 1}
    rest = {"steps": 2, "steps_per_epoch": 1, "batch_size": 4, "device": "none", "commit": None}
    return summarise(FACTS, records(seeds), seeds=seeds, times=times, **rest)


def test_differences_are_paired_and_their_intervals_are_student_t():
    found = summary((0, 1, 2))["differences"]
    assert [*found] == ["a", "b", "ensemble", "mean"]
    interval = stats.ttest_rel(TOGETHER, ALONE).confidence_interval(0.95)
    np.testing.assert_allclose(found["a"]["mean"], np.mean(TOGETHER) - np.mean(ALONE))
    np.testing.assert_allclose((found["a"]["low"], found["a"]["high"]), interval)
    b = 0.7 - (0.6 + 0.01 * np.arange(3))
    own = (np.array(TOGETHER) - ALONE + b) / 2
    np.testing.assert_allclose(found["mean"]["mean"], own.mean())
    interval = stats.ttest_1samp(own, 0).confidence_interval(0.95)
    np.testing.assert_allclose((found["mean"]["low"], found["mean"]["high"]), interval)
    assert found["ensemble"] == {"mean": 0.0, "low": 0.0, "high": 0.0}


def test_the_table_says_them():
    lines = table(summary((0, 1, 2))).splitlines()
    assert lines[0].endswith("the same alone   difference, points (95 % interval)")
    assert re.search(r"^a +10 +88\.33 ± 7\.64 % +85\.67 ± 4\.04 % +\+2\.67 \(-7\.37 to", lines[1])
    assert [line.split()[0] for line in lines[1:]] == ["a", "b", "mean", "ensemble", "mean"]
    one = table(summary((1,))).splitlines()
    assert one[0].endswith("difference, points")
    assert one[1].split()[2:] == ["80.00", "%", "82.00", "%", "-2.00"]


def test_a_summary_of_an_earlier_release_still_has_a_table():
    old = summary((1,))
    for name in [n for n in old if "mean" in n or "twin_" in n or n == "differences"]:
        del old[name]
    assert "ensemble" in table(old) and "difference" not in table(old)


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_the_picture_has_a_panel_for_all_that_was_measured(seeds, tmp_path, monkeypatch):
    from matplotlib import figure

    drawn = []
    monkeypatch.setattr(figure.Figure, "savefig", lambda self, *_, **__: drawn.append(self))
    plot_curves(FACTS, records(seeds), tmp_path / "curves.png")
    panels = {axis.get_ylabel(): axis for axis in drawn[0].axes if axis.get_ylabel()}
    assert [*panels] == [
        "test accuracy, %",
        "accuracy minus alone, points",
        "likeness of last maps (CKA)",
        "discriminator is right, %",
        "cross entropy loss",
        "generator loss",
    ]
    gain = panels["accuracy minus alone, points"].lines[-2].get_ydata()
    expected = 100 * (np.array(TOGETHER) - ALONE)[list(seeds)].mean()
    np.testing.assert_allclose(gain, [expected, expected])
    likeness = panels["likeness of last maps (CKA)"]
    assert [line.get_label() for line in likeness.lines] == ["a, b", "a alone, b alone"]
    ranges = {label: len(axis.collections) for label, axis in panels.items()}
    if len(seeds) > 1:  # of the students alone: ranges of all six lines would hide each other
        assert [*ranges.values()] == [2, 2, 1, 0, 1, 1]
    else:
        assert not any(ranges.values())
    json.dumps(summary(seeds))


def test_a_single_record_is_seen(tmp_path, monkeypatch):
    from matplotlib import figure

    drawn = []
    monkeypatch.setattr(figure.Figure, "savefig", lambda self, *_, **__: drawn.append(self))
    last = [record for record in records((0, 1, 2)) if record["step"] == 2]
    plot_curves(FACTS, last, tmp_path / "curves.png")
    for axis in drawn[0].axes:
        lines = [line for line in axis.lines if not line.get_label().startswith("_")]
        assert lines and all(line.get_marker() == "o" for line in lines)


def test_a_picture_is_the_same_every_time(tmp_path):
    for name in ("one.svg", "two.svg", "curves.png"):
        plot_curves(FACTS, records((0, 1, 2)), tmp_path / name)
    text = (tmp_path / "one.svg").read_text()
    assert text == (tmp_path / "two.svg").read_text()
    assert ">cross entropy loss</text>" in text  # not drawn as outlines
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
