"""Tables of claims, of likeness and beside published figures, against numbers by hand."""

import re

import numpy as np
import pytest
from scipy import stats

from experiments.study import page, tables
from experiments.study.plan import Block, Claim, Setting, Study
from experiments.study.records import Records

ALONE = ((0.90, 0.80), (0.92, 0.84), (0.91, 0.79))  # of networks a and b, by seed
TOGETHER = ((0.91, 0.84), (0.92, 0.85), (0.94, 0.83))
TAUGHT = (0.93, 0.92, 0.95)  # of a alone


def record(setting, seed, cka=None, **accuracies):
    nodes = {
        name: {"network": name, "role": "student", "accuracy": value}
        for name, value in accuracies.items()
    }
    alike = {"cka": cka, "cosine": 0.5, "l1": 1.0, "l2": 2.0}
    curve = [{"epoch": 1.0, **({"similarity": {"a, b": alike}} if cka is not None else {})}]
    common = {"block": "few", "setting": setting, "seed": seed}
    return {**common, "nodes": nodes, "ensemble_accuracy": 0.5, "curve": curve}


BLOCK = Block(
    "few",
    (
        Setting("independent", "", published={"a": 90.5}),
        Setting("AFD", ""),
        Setting("KD", "", published={"a": 93.0}),
    ),
    lambda config, seed: None,
    seeds=(0, 1, 2),
)
STUDY = Study(
    "?",
    (BLOCK,),
    (
        Claim("together is better", "few", "AFD", "independent"),
        Claim("a teacher is better", "few", "KD", "independent"),
        Claim("alone is better", "few", "independent", "KD"),
        Claim("nobody tried", "few", "DML", "independent"),
    ),
)


@pytest.fixture
def results():
    found = []
    for seed in range(3):
        a, b = ALONE[seed]
        found.append(record("independent", seed, 0.25 + 0.25 * seed, a=a, b=b))
        a, b = TOGETHER[seed]
        found.append(record("AFD", seed, 0.9, a=a, b=b))
        found.append(record("KD", seed, a=TAUGHT[seed]))
    return Records(found)


def test_a_claim_compares_what_both_settings_have(results):
    lines = tables.claims(STUDY, results).splitlines()
    assert len(lines) == 5  # one claim has no runs
    own = 100 * (np.mean(TOGETHER, 1) - np.mean(ALONE, 1))
    low, high = stats.ttest_1samp(own, 0).confidence_interval(0.95)
    cell = f"{own.mean():+.2f} ({low:+.2f} to {high:+.2f})"
    assert lines[2] == f"| together is better | AFD minus independent | few | {cell} | 3 |"
    # The teacher's student is a ResNet-8, say, so only that of the pair counts.
    own = 100 * (np.array(TAUGHT) - np.array(ALONE)[:, 0])
    assert f"| {own.mean():+.2f} (" in lines[3] and f"| {-own.mean():+.2f} (" in lines[4]


def test_averages_over_time_stand_apart():
    found = []
    for seed, (a, _) in enumerate(ALONE):
        found.append(record("independent", seed, a=a, b=a))
        own = record("KD", seed, **{"branch 0": a, "branch 1": a + 0.02, "both": a + 0.2})
        for node, role in (("branch 0", "student"), ("branch 1", "student"), ("both", "ensemble")):
            own["nodes"][node].update(network="a", role=role)
            better = own["nodes"][node]["accuracy"] + (0.05 if role == "student" else 0.3)
            average = {"network": "average of a", "role": "average", "accuracy": better}
            own["nodes"][f"average of {node}"] = average
        found.append(own)
    rows = {row.network: row for row in tables.rows(BLOCK, Records(found)) if row.setting == "KD"}
    assert [*rows] == ["a", "average of a"]
    np.testing.assert_allclose(rows["a"].difference.mean, 1)
    np.testing.assert_allclose(rows["average of a"].difference.mean, 6)


def test_a_leader_of_branches_stands_apart():
    found = []
    for seed, (a, _) in enumerate(ALONE):
        found.append(record("independent", seed, a=a, b=a))
        own = record("KD", seed, **{"branch 0": a, "branch 1": a - 0.02, "leader": a + 0.01})
        for node in own["nodes"].values():
            node["network"] = "a"
        found.append(own)
    rows = {row.network: row for row in tables.rows(BLOCK, Records(found)) if row.setting == "KD"}
    assert [*rows] == ["a", "a leader"]
    np.testing.assert_allclose(rows["a"].difference.mean, -1)
    np.testing.assert_allclose(rows["a leader"].difference.mean, 1)


def test_likeness_leaves_out_single_networks(results):
    lines = tables.likeness(BLOCK, results).splitlines()
    assert lines[2:] == [
        "| independent | 0.500 ± 0.250 | 0.500 ± 0.000 | 1.000 ± 0.000 | 2.000 ± 0.000 |",
        "| AFD | 0.900 ± 0.000 | 0.500 ± 0.000 | 1.000 ± 0.000 | 2.000 ± 0.000 |",
    ]


def test_published_figures_stand_beside_ours(results):
    lines = [line.split(" | ") for line in tables.markdown(BLOCK, results).splitlines()]
    assert lines[0][2:5] == ["test accuracy, %", "published, %", "ours minus published"]
    by_setting = {(line[0], line[1]): line for line in lines if len(line) > 5}
    assert by_setting["| independent", "a"][3:5] == ["90.50", "+0.50"]
    assert by_setting["| independent", "b"][3:5] == ["", ""]
    assert by_setting["| KD", "a"][3:5] == ["93.00", "+0.33"]
    assert {len(line) for line in lines if len(line) > 1} == {8}


def test_the_page_has_all_three_kinds_of_tables(results, monkeypatch):
    monkeypatch.setattr(page, "load", lambda name: STUDY)
    monkeypatch.setattr(page, "Results", lambda file, study: results)
    kinds = ("few", "claims", "likeness, few")
    text = "".join(f"before <!-- s: {kind} -->\nold\n<!-- end --> after\n" for kind in kinds)
    filled = page.filled(text)
    assert page.filled(filled) == filled and "old" not in filled
    for content in (
        tables.markdown(BLOCK, results),
        tables.claims(STUDY, results),
        tables.likeness(BLOCK, results),
    ):
        assert f"-->\n\n{content}\n\n<!-- end --> after" in filled


def test_numbers_within_a_line(results, monkeypatch):
    monkeypatch.setattr(page, "load", lambda name: STUDY)
    monkeypatch.setattr(page, "Results", lambda file, study: results)
    text = "by <!-- s: minus baseline, AFD -->?<!-- end --> points, <!-- s: seeds --><!-- end -->"
    text += " seeds, <!-- s: runs --><!-- end --> runs"
    shown = re.sub("<.*?>", "", page.filled(text))
    assert shown == "by +1.33, +3.00 points, 3 seeds, 9 runs"
    alone = [record("independent", seed, a=a) for seed, (a, _) in enumerate(ALONE)]
    fewer = Records([*alone, record("KD", 0, a=0.92), record("KD", 1, a=0.94)])
    assert tables.seeds(STUDY, fewer) == "0 to 3" and tables.runs(STUDY, fewer) == "5 of 9"
    assert tables.effect(STUDY, "KD", fewer) == "**+2.00**"
