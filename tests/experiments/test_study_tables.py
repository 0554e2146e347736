"""A study's tables, pages and figures."""

import re

import numpy as np
import pytest

from afd_jax.reports.paired import seeds_needed
from experiments.study import figures, page, tables
from experiments.study.plan import Block, Setting, Study
from experiments.study.records import Records
from tests.experiments.small_study import SVG, cells, recipe, record


def block_of(*names, seeds=3, **options):
    every = tuple(Setting(name, "") for name in names)
    return Block("300 labels", every, recipe, seeds=tuple(range(seeds)), **options)


def table_of(block, *records):
    return cells(tables.markdown(block, Records(list(records))))


def three(setting, *accuracies, **options):
    return [
        record(setting, seed, {"a": ("a", own)}, "300 labels", **options)
        for seed, own in enumerate(accuracies)
    ]


def test_a_table_has_means_deviations_and_differences():
    records = three("independent", 0.90, 0.91, 0.92) + three("AFD", 0.91, 0.925, 0.93)
    rows, below = table_of(block_of("independent", "AFD"), *records)
    assert below == "3 seeds each."
    accuracy, minus = "test accuracy, %", "minus independent, points (95 %)"
    assert [row[accuracy] for row in rows] == ["91.00 ± 1.00", "92.17 ± 1.04"]
    # 1.0, 1.5, 1.0: mean 1.167, deviation 0.289, and t = 4.303 for two degrees of freedom.
    assert [row[minus] for row in rows] == ["", "**+1.17 (+0.45 to +1.88)**"]
    assert [row["300 labels"] for row in rows] == ["independent", "AFD"]
    assert [row["network"] for row in rows] == ["a", "a"]
    assert [row["ensemble, %"] for row in rows] == ["", ""]
    needed = [row["seeds to see 0.5"] for row in rows]
    assert needed == ["", str(seeds_needed(np.std([1, 1.5, 1], ddof=1), 0.5))]
    rows, _ = table_of(block_of("independent", "AFD", matters=2), *records)
    assert rows[1]["seeds to see 2"] == "3"
    worse = three("independent", 0.90, 0.91, 0.92) + three("AFD", 0.91, 0.89, 0.91)
    assert table_of(block_of("independent", "AFD"), *worse)[0][1][minus] == (
        "-0.67 (-4.46 to +3.13)"
    )


def test_branches_and_equal_networks_are_averaged_within_a_seed():
    branches = [
        {"branch 0": ("a", 0.5), "branch 1": ("a", 0.7)},
        {"branch 0": ("a", 0.9), "branch 1": ("a", 0.7)},
    ]
    records = [
        record("ONE", seed, nodes, "300 labels", ensemble=0.75 + seed / 10)
        for seed, nodes in enumerate(branches)
    ]
    records += three("independent", 0.5, 0.6)
    pair = {"a": ("a", 0.4), "b": ("b", 0.9), "a_1": ("a", 0.6)}
    records += [record("DML", 0, pair, "300 labels", ensemble=0.8)]
    records += [record("DML", 0, {"teacher": ("c", 0.9)}, "another table")]
    records[0]["nodes"]["twin"] = {"network": "a alone", "role": "twin", "accuracy": 0.1}
    rows, _ = table_of(block_of("independent", "ONE", "DML", seeds=2), *records)
    kept = ("300 labels", "network", "test accuracy, %", "ensemble, %")
    assert [tuple(row[k] for k in kept) for row in rows] == [
        ("independent", "a", "55.00 ± 7.07", ""),
        ("ONE", "a", "70.00 ± 14.14", "80.00 ± 7.07"),
        ("DML", "a", "50.00", "80.00"),
        ("DML", "b", "90.00", "80.00"),
    ]
    minus = [row["minus independent, points (95 %)"] for row in rows]
    assert minus == ["", "+15.00 (-48.53 to +78.53)", "+0.00", ""]


def test_fewer_seeds_than_planned_are_said():
    block = block_of("independent", "AFD", "DML")
    records = three("independent", 0.9, 0.9, 0.9) + three("AFD", 0.9)
    rows, below = table_of(block, *records)
    assert below == "3 seeds each planned; so far only 1 of AFD; 0 of DML."
    assert [row["300 labels"] for row in rows] == ["independent", "AFD"]
    assert table_of(block, *records[:1], *records[3:])[1] == (
        "3 seeds each planned; so far only 1 of independent, AFD; 0 of DML."
    )


def test_a_page_gets_its_tables_and_is_up_to_date():
    text = (
        "Before.\n<!-- few_labels_recipe: 300 labels, validation images -->\nold\n<!-- end -->\nA"
    )
    filled = page.filled(text)
    assert page.filled(filled) == filled != text and "old" not in filled
    assert filled.startswith("Before.\n<!-- few_labels_recipe: 300 labels, validation images -->\n")
    assert filled.endswith("\n\n4 seeds each.\n\n<!-- end -->\nA")
    rows, _ = cells(filled.split("-->\n\n")[1])
    assert len(rows) == 20 and {row["network"] for row in rows} == {"resnet8", "resnet14"}
    for each in page.PAGES:
        text = each.read_text()
        assert page.filled(text) == text


def test_a_page_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    text = "<!-- few_labels_recipe: runs -->old<!-- end -->\n"
    own = tmp_path / "page.md"
    own.write_text(text)
    monkeypatch.setattr(page, "PAGES", (own,))

    def disk_full(file, content):
        file.write_bytes(content.encode()[:5])
        raise OSError("no space left on device")

    with monkeypatch.context() as full, pytest.raises(OSError, match="no space left"):
        full.setattr("pathlib.Path.write_text", disk_full)
        page.fill()
    assert own.read_text() == text
    page.fill()
    assert own.read_text() == page.filled(text) != text
    assert {*tmp_path.iterdir()} == {own, tmp_path / ".lock"}


def test_figures_are_drawn(tmp_path):
    block = block_of("independent", "AFD", "DML", "ONE")
    records = three("independent", 0.90, 0.91, 0.92) + three("AFD", 0.91, 0.925, 0.93)
    records += three("DML", 0.8)
    for own in records[3:6]:
        points = [(0.5, 0.25 * own["seed"]), (1.0, 0.5)]
        own["curve"] = [
            {"epoch": epoch, "similarity": {"a, b": {"cka": cka}}} for epoch, cka in points
        ]
    own = Study("", (block, block_of("independent", "AFD")))
    figures.differences(own, Records(records), tmp_path / "differences.svg")
    figures.similarity(block, Records(records), tmp_path / "similarity.svg")
    figures.similarity(block, Records([]), tmp_path / "nothing.svg")
    for name in ("differences", "similarity"):
        assert (tmp_path / f"{name}.svg").read_text().startswith(SVG)
    assert not (tmp_path / "nothing.svg").exists()
    assert figures.over_time(block, Records(records), "AFD", "cka") == [(0.5, 0.25), (1.0, 0.5)]
    assert figures.over_time(block, Records(records), "AFD", "l1") == []
    records[3]["curve"][0]["similarity"]["a, c"] = {"cka": 9.0}  # of three networks: left out
    assert figures.over_time(block, Records(records), "AFD", "cka")[0] == (0.5, 0.375)
    same = three("independent", 0.9, 0.9, 0.9) + three("AFD", 0.9, 0.9, 0.9)
    figures.differences(own, Records(same), tmp_path / "same.svg")
    assert (tmp_path / "same.svg").read_text().startswith(SVG)
    figures.differences(own, Records(records[:3]), tmp_path / "none.svg")
    assert not (tmp_path / "none.svg").exists()


def test_figures_show_the_own_method_and_what_lies_outside(tmp_path):
    block = block_of("independent", "AFD", "DML", "ONE")
    records = three("independent", 0.90, 0.91, 0.92) + three("AFD", 0.91, 0.925, 0.93)
    records += three("DML", 0.91, 0.92, 0.93) + three("ONE", 0.1, 0.15, 0.1)
    for name in ("one", "two"):
        figures.differences(Study("", (block,)), Records(records), tmp_path / f"{name}.svg")
    text = (tmp_path / "one.svg").read_text()
    assert text == (tmp_path / "two.svg").read_text()
    bold = re.findall(r"font-weight: 700[^>]*>([^<]*)</text>", text)
    assert bold == ["AFD"]
    assert ">DML</text>" in text and "-79.33 (" in text  # in words: beyond the axis
