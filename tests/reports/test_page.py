"""The page of a run: from small records by hand, from a run that was trained, and in a browser."""

import dataclasses
import html.parser
import itertools
import json
import re
import shutil
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from afd_jax.commands import report as report_command
from afd_jax.reports.analysis import analyse
from afd_jax.reports.grad_cam import NoPathError
from afd_jax.reports.page import figures, series, tables
from afd_jax.reports.page.html import page
from afd_jax.reports.page.records import RunRecords, Sights
from afd_jax.reports.page.series import Panel, Series
from afd_jax.runs import report
from afd_jax.runs.report import gather
from tests.running import command


def main(arguments):
    """The command, which imports networks of the tests' own."""
    return report_command.main([*arguments, "--trust"])


HOSTILE = "<script>alert(1)</script>\"'&]]>-->"


def records(name="run", seeds=(0, 1), extra="", shift=0.0, summary=True):
    """Two networks with twins; accuracies that nobody would get by chance."""
    a, b = f"a{extra}", "b"
    nodes = [
        {"name": a, "network": a, "role": "student", "of": None, "parameters": 1234},
        {"name": b, "network": b, "role": "student", "of": None, "parameters": 5678},
        {"name": f"{a} alone", "network": a, "role": "twin", "of": a, "parameters": 1234},
        {"name": "b alone", "network": b, "role": "twin", "of": b, "parameters": 5678},
    ]
    metrics = []
    for seed in seeds:
        for epoch in (1.0, 2.0):
            base = 0.1 * epoch + 0.0123 * seed + shift
            where = {"step": int(10 * epoch), "epoch": epoch, "seed": seed}
            accuracy = {a: base + 0.31, b: base + 0.2, f"{a} alone": base + 0.3 + 0.01 * seed}
            accuracy["b alone"] = base + 0.111
            pair = {"cka": 0.4321, "cosine": 0.5, "l1": 1.5, "l2": 2.5}
            metrics.append(
                {
                    "kind": "train",
                    **where,
                    f"{a}/accuracy": base,
                    f"{a}/loss/cross_entropy": 2.3456 - base,
                    f"{a}/gradient_norm/logit": 1.0 + base,
                    f"{a}/real_accuracy": 0.7654,
                    f"{a}/fake_accuracy": 0.6,
                    "images_per_second": 100.0,
                }
            )
            metrics.append(
                {
                    "kind": "test",
                    **where,
                    "accuracy": accuracy,
                    "cross_entropy": dict.fromkeys(accuracy, 1.234),
                    "ensemble_accuracy": base + 0.4,
                    "twin_ensemble_accuracy": base + 0.3,
                    "similarity": {f"{a}, b": pair},
                }
            )
    settings = {"seed": seeds[0], "seeds": len(seeds), "data": {"name": "digits" + extra}}
    settings["method"] = {"name": "afd", "temperature": 3.25}
    return RunRecords(
        name=name + extra,
        folder=f"runs/{name}{extra}",
        settings=settings,
        defaults={"seed": 0, "seeds": 1, "data": {"name": "digits"}, "method": {"name": "afd"}},
        facts={"method": "AFD", "nodes": nodes, "edges": [[a, b], [b, a]]},
        data={
            **{"classes": 3, "train": 100, "heldout": 0, "test": 30},
            **{"image_shape": [8, 8, 1], "sha256": "same"},
        },
        metrics=metrics,
        summary=_summary() if summary else None,
        rates={"logit": [(0.0, 0.1), (2.0, 0.01)]},
    )


def _summary():
    return {
        "steps": 20,
        "epochs": 2.0,
        "compile_seconds": 12.0,
        "train_seconds": 34.0,
        "images_per_second": 567.0,
        "jax_version": "0.10.2",
        "versions": {"flax": "0.12.8"},
        "commit": "abcdef123456",
        "device": "1 x cpu",
    }


def with_predictions(run, extra=""):
    """Adds an analysis and one image, with hostile names of classes if asked for."""
    rng = np.random.default_rng(0)
    names = [f"zero{extra}", "one", "two"]
    roles = {node["name"]: node["role"] for node in run.facts["nodes"]}
    found = {name: rng.dirichlet([1, 1, 1], 30).astype(np.float32) for name in roles}
    labels = np.arange(30) % 3
    analysis = analyse(labels, found, names, roles)
    sights = [Sights(names[0], b"png", {name: (names[1], 0.5678, b"png") for name in roles})]
    return dataclasses.replace(run, analysis=analysis, sights=sights), labels, found


class Reader(html.parser.HTMLParser):
    """Elements, text, and whether every element is closed in order."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.words = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(self.words)


def check(text):
    """What holds for every page."""
    reader = Reader(text)
    for tag, attributes in reader.tags:
        for name in ("src", "href", "xlink:href", "action", "data"):
            value = attributes.get(name) or ""
            assert not value or value.startswith(("#", "data:")), (tag, value)
    style = "".join(re.findall(r"<style.*?</style>", text, re.DOTALL))
    assert "@import" not in style and "url(" not in style
    every = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(every) == len({*every})
    for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        if 'xmlns="' in svg:  # pictures; the small dashes of legends are HTML's own
            ET.fromstring(svg)
    for place in re.findall(r"(?:href=\"|url\()#([^\")]+)", text):
        assert place in every, place
    assert len(text) < 3e6
    return reader


def test_shows_the_numbers_of_the_records():
    run, labels, found = with_predictions(records())
    reader = check(page([run]))
    text = reader.text
    # a: seeds 0.51 and 0.5223; alone 0.5 and 0.5223; ensembles 0.6 and 0.6123
    assert (
        f"{100 * np.mean([0.51, 0.5223]):.2f} ± {100 * np.std([0.51, 0.5223], ddof=1):.2f}" in text
    )
    assert f"{np.mean([1.0, 0.0]):+.2f}" in text
    for words in ("1,234", "5,678", "0.4321", "76.5", "567 images per second", "abcdef123456"):
        assert words in text, words
    assert "3.25" in text and "method.temperature" in text
    # Calibration by another way: of the predictions, not of the analysis.
    right = np.mean(found["b"].argmax(1) == labels)
    assert f"{100 * right:.2f}" in text
    share = np.mean(found["a"].argmax(1) == found["b"].argmax(1))
    assert f"{100 * share:.2f}" in text
    assert "56.8" in text


def test_points_for_the_script_are_the_metrics():
    text = page([records()])
    blocks = re.findall(r'<script type="application/json">(.*?)</script>', text, re.DOTALL)
    first = {s["name"]: s for s in json.loads(blocks[0])}
    assert first["a"]["x"] == [1.0, 2.0]
    np.testing.assert_allclose(first["a"]["y"], [41.615, 51.615])
    np.testing.assert_allclose(first["a"]["low"], [41.0, 51.0])
    np.testing.assert_allclose(first["a"]["high"], [42.23, 52.23])


def test_escapes_hostile_names():
    run, _, _ = with_predictions(records(extra=HOSTILE), HOSTILE)
    text = page([run])
    check(text)
    assert "<script>alert" not in text
    assert text.count("<script") == len(re.findall(r'<script(>| type="application/json">)', text))
    text = page([records(extra=HOSTILE), records("other")])
    check(text)
    assert "<script>alert" not in text


def test_compares_runs_seed_by_seed():
    runs = [records("first"), records("second", seeds=(1, 2), shift=0.05)]
    text = check(page(runs)).text
    table = tables.differences(runs)
    # They share seed 1 alone, so there is one difference and no interval.
    assert table.rows[0] == ["second", "a", "+5.00", "1"]
    assert "seeds" in text and "first" in text and "second" in text
    assert tables.settings_between(runs).rows == [["seed", "0", "1"]]


def test_a_single_student_is_no_ensemble():
    runs = [records("pair"), records("single")]
    nodes = [node for node in runs[1].facts["nodes"] if node["name"] in ("a", "a alone")]
    runs[1].facts["nodes"][:] = nodes
    panels = {panel.title: panel for panel in series.comparison_panels(runs)}
    (line,) = panels["Test accuracy of the ensemble, %"].series
    assert line.name == "pair"
    assert len(panels["Test accuracy of a, %"].series) == 2


def test_runs_that_do_not_compare_say_so():
    first, second = records("first"), records("second", summary=False)
    assert tables.comparison([first, second]).rows[-1] == ["epochs", "2", "2, not finished"]
    other = dataclasses.replace(second, data={**second.data, "sha256": "other"})
    assert tables.differences([first, second]) and tables.differences([first, other]) is None
    assert "have other data" in check(page([first, other])).text


def test_runs_without_a_common_seed_say_so():
    text = check(page([records("first"), records("second", seeds=(5,))])).text
    assert "share no seed" in text


def test_unfinished_runs_have_a_page():
    run = records(summary=False)
    assert "not finished" in check(page([run])).text
    nothing = dataclasses.replace(run, metrics=[])
    assert "No evaluation yet" in check(page([nothing])).text


def test_earlier_generations_have_a_deviation_if_there_are_several_seeds():
    one = {"generation": 1, "test_accuracy": 0.5, "parameters": 1000}
    several = {**one, "generation": 2, "test_accuracy_deviation": 0.0707}
    run = dataclasses.replace(records(), generations=[one, several])
    rows = [row for row in tables.results(run).rows if row[0].startswith("generation")]
    assert [row[1] for row in rows] == ["50.00", "50.00 ± 7.07"]


def test_worst_classes_come_first():
    run, labels, found = with_predictions(records())
    table = tables.confusion(run.analysis, "a")
    predicted = found["a"].argmax(1)
    right = {k: np.mean(predicted[labels == k] == k) for k in range(3)}
    names = ["zero", "one", "two"]
    assert [row[0] for row in table.rows] == [names[k] for k in sorted(right, key=right.get)]
    worst = min(right, key=right.get)
    cells = dict(zip(table.head, table.rows[0], strict=True))
    for k, name in enumerate(names):
        assert int(cells[name] or 0) == np.sum((labels == worst) & (predicted == k))


@pytest.mark.parametrize("places", [[0, 0, 0], [5, 5.1, 9.9, 10], [0, 3, 3.5, 4, 9], [10, 10, 10]])
def test_labels_do_not_touch(places):
    moved = figures.spread_out(places, 1.5, 0.0, 10.0)
    assert all(b - a > 1.5 - 1e-9 for a, b in itertools.pairwise(moved))
    assert moved[0] >= -1e-9 and moved[-1] <= 10 + 1e-9


def test_figures_use_the_style_sheets_colours_only():
    panel = Panel("title", [Series("s", [1.0, 2.0], np.ones((2, 2)), k) for k in range(9)])
    svg = figures.draw(panel, "f").svg
    assert not re.findall(r"#[0-9a-fA-F]{6}", svg)
    assert {f"var(--s{k})" for k in range(8)} <= {*re.findall(r"var\(--s\d\)", svg)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "run"
    assert command(folder, "--config.seeds=2") == 0
    return folder


def test_of_a_trained_run(trained, capsys):
    before = sorted(file.name for file in trained.iterdir())
    assert main([str(trained), "--seed=1"]) == 0
    assert "left out" not in capsys.readouterr().out
    text = (trained / "report.html").read_text()
    reader = check(text)
    summary = json.loads((trained / "summary.json").read_text())
    for network in [*summary["networks"], *summary["twins"]]:
        mean, deviation = network["test_accuracy"], network["test_accuracy_deviation"]
        assert f"{100 * mean:.2f} ± {100 * deviation:.2f}" in reader.text
    for own in summary["differences"].values():
        low, high = (f"{100 * own[end]:+.2f}" for end in ("low", "high"))
        assert f"{100 * own['mean']:+.2f} ({low} to {high})" in reader.text
    # Predictions of seed 1 are those of the run's own last evaluation.
    (run,) = gather([trained], seed=1, trust=True)
    for network in summary["runs"][1]["networks"]:
        assert run.analysis["nodes"][network["name"]]["accuracy"] == network["test_accuracy"]
    assert len(run.sights) == 6 and "Grad-CAM" in reader.text
    assert {*run.rates} == {"logit", "feature", "discriminator"}
    assert {file.name for file in trained.iterdir()} - {*before} == {"report.html"}


def test_grad_cam_leaves_out_only_what_it_cannot_see_through(trained, monkeypatch):
    """The average of a gated ensemble, say, whose logits are not made of its own map."""
    (whole,) = gather([trained], trust=True)
    hidden, *others = whole.sights[0].networks
    real = report._seen

    def seen(folder, name, *rest):
        if name == hidden:
            raise NoPathError("no path")
        return real(folder, name, *rest)

    monkeypatch.setattr(report, "_seen", seen)
    (run,) = gather([trained], trust=True)
    assert [*run.sights[0].networks] == others
    assert run.missing == [f"Grad-CAM leaves out {hidden}: no path."]
    check(page([run]))


def test_without_data_or_checkpoint_says_why(trained, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    shutil.rmtree(folder / "checkpoints")
    (run,) = gather([folder], trust=True)
    assert run.analysis is None and "no checkpoint" in run.missing[0]
    assert "left out" in check(page([run])).text


def test_refuses_folders_without_a_run(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "no run in this folder" in capsys.readouterr().err


def test_refuses_seeds_that_are_not_there(trained, capsys):
    assert main([str(trained), "--seed=7"]) == 2
    assert "seeds 0 to 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--seed=1", "--no-images"], "--seed: is for predictions, and --no-images shows none"),
        (["other", "--data-dir=x", "--to=y"], "--data-dir: is for predictions, and a comparison"),
        (["--to=."], "--to: . is a folder; name a file"),
        (["--no-im"], "unrecognized arguments: --no-im"),
    ],
)
def test_options_that_would_do_nothing_are_refused(arguments, words, capsys):
    with pytest.raises(SystemExit):
        main(["run", *arguments])
    assert words in capsys.readouterr().err


@pytest.fixture(scope="module")
def browser():
    """Chromium, where there is one."""
    api = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
    if not path:
        pytest.skip("no Chromium")
    with api.sync_playwright() as play:
        found = play.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("several", [False, True])
def test_in_a_browser(browser, tmp_path, width, scheme, several):
    runs = [with_predictions(records())[0]]
    runs = [records("first"), records("second")] if several else runs
    (tmp_path / "page.html").write_text(page(runs))
    tab = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    said = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda r: r.url.startswith("http") and said.append(r.url))
    tab.goto(f"file://{tmp_path}/page.html")
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    ground = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == (scheme == "light")
    button = tab.locator("button[data-of='0']").first
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert not tab.locator("figure").first.locator("[data-series='0']").first.is_visible()
    tab.locator("figure .plot svg").first.hover()
    assert "epoch" in tab.locator("#tip").inner_text()
    assert not said
    tab.close()
