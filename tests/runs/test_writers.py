"""Writers: what TensorBoard and W&B hold equals metrics.jsonl, and neither can end a run."""

import json
import logging
import sys
import types

import pytest
import tensorboardX
from tensorboard.backend.event_processing import event_accumulator

from afd_jax.commands.train import main
from afd_jax.runs import writers
from tests.running import CONFIG, SETTINGS, command, ctrl_c_after, lines

SMALL = (*SETTINGS[:-1], "--config.method.name=dml", "--config.graph=all_pairs")
BOARD = "--config.writers=('tensorboard',)"


def read(folder):
    """Scalars by tag as TensorBoard itself reads them, and its text."""
    found = event_accumulator.EventAccumulator(str(folder), {"scalars": 0, "tensors": 0})
    found.Reload()
    tags = found.Tags()
    scalars = {t: [(e.step, e.value) for e in found.Scalars(t)] for t in tags["scalars"]}
    texts = {t: found.Tensors(t)[-1].tensor_proto.string_val[0] for t in tags["tensors"]}
    return scalars, texts, found


def expected(records, key):
    return [(r["step"], r[key]) for r in records if key in r]


def agrees(scalars, records):
    for name in ("Tiny", "Wider"):
        for term in ("cross_entropy", "distillation"):
            key = f"{name}/loss/{term}"
            want = expected(records, key)
            assert [s for s, _ in scalars[key]] == [s for s, _ in want] and want
            assert [v for _, v in scalars[key]] == pytest.approx([v for _, v in want], rel=1e-6)
        tests = [(r["step"], r["accuracy"][name]) for r in records if r["kind"] == "test"]
        own = scalars[f"test/accuracy/{name}"]
        assert [s for s, _ in own] == [s for s, _ in tests]
        assert [v for _, v in own] == pytest.approx([v for _, v in tests], rel=1e-6)


def test_tensorboard_holds_what_the_metrics_hold_also_when_continued(tmp_path, monkeypatch, capsys):
    ctrl_c_after(monkeypatch, 8)
    two = ("--config.seeds=2",)
    assert command(tmp_path, *two, BOARD, settings=SMALL) == 130
    monkeypatch.undo()
    # As after a crash: events beyond the checkpoint, which are going to come again.
    with tensorboardX.SummaryWriter(str(tmp_path / "tensorboard" / "seed_0")) as beyond:
        beyond.add_scalar("Tiny/loss/cross_entropy", 99.0, 12)
    assert command(tmp_path, *two, BOARD, settings=SMALL) == 0
    for seed in (0, 1):
        scalars, texts, found = read(tmp_path / "tensorboard" / f"seed_{seed}")
        agrees(scalars, [r for r in lines(tmp_path) if r["seed"] == seed])
        settings = json.loads(texts["settings/text_summary"])
        assert settings["seeds"] == 2 and settings["method"]["name"] == "dml"
        summary = json.loads(texts["summary/text_summary"])
        assert summary == json.loads((tmp_path / "summary.json").read_text())
        assert found.SummaryMetadata("_hparams_/session_start_info").plugin_data.plugin_name


def test_a_writer_that_joins_late_gets_everything(tmp_path, monkeypatch):
    ctrl_c_after(monkeypatch, 8)
    assert command(tmp_path, settings=SMALL) == 130
    monkeypatch.undo()
    assert command(tmp_path, BOARD, settings=SMALL) == 0
    agrees(read(tmp_path / "tensorboard" / "seed_0")[0], lines(tmp_path))


class Broken:
    new = True

    def __init__(self, session):
        self.left = 2

    def write(self, record):
        self.left -= 1
        if not self.left:
            raise OSError("disk full")

    def finish(self, summary):
        raise AssertionError("it was left out")

    close = finish


def test_a_writer_that_fails_is_said_once_and_ends_nothing(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(writers._WRITERS, "tensorboard", Broken)
    monkeypatch.setitem(writers._PACKAGES, "tensorboard", "json")
    with caplog.at_level(logging.WARNING, "afd_jax"):
        assert command(tmp_path, BOARD, settings=SMALL) == 0
    said = [m for m in caplog.messages if "tensorboard" in m]
    assert said == [
        "writer tensorboard failed (disk full); the run goes on without it, and metrics.jsonl has "
        "everything"
    ]
    assert (tmp_path / "summary.json").is_file()


def test_one_that_cannot_be_opened_ends_nothing(tmp_path, monkeypatch, caplog):
    def fail(session):
        raise RuntimeError("no network")

    monkeypatch.setitem(writers._WRITERS, "wandb", fail)
    with caplog.at_level(logging.WARNING, "afd_jax"):
        own = writers.Writers(["wandb"], tmp_path, "run", {}, [0, 1])
        with own:
            own.begin([], 0)
            own.write({"kind": "train", "step": 1, "seed": 0})
    assert len([m for m in caplog.messages if "no network" in m]) == 1


@pytest.mark.parametrize(
    "value, words",
    [
        ("('tensorbord',)", "config.writers = 'tensorbord': did you mean 'tensorboard'?"),
        ("('wandb',)", "config.writers = 'wandb': needs wandb: pip install 'afd-jax[wandb]'"),
        ("('tensorboard',)", "config.writers = 'tensorboard': needs tensorboardX: pip install"),
    ],
)
def test_a_wrong_name_or_a_missing_package_is_named_first(
    value, words, tmp_path, monkeypatch, capsys
):
    for package in ("wandb", "tensorboardX"):
        monkeypatch.setitem(sys.modules, package, None)
    arguments = [f"--config={CONFIG}", f"--workdir={tmp_path}/new", f"--config.writers={value}"]
    assert main([*arguments, *SMALL]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {words}") and len(error.splitlines()) == 1
    assert not (tmp_path / "new").exists()


class StandIn:
    """What the writer uses of W&B, noting what it is told."""

    def __init__(self):
        self.told = []

    def login(self, prompt):
        assert prompt is False
        return False

    def Settings(self, **options):  # noqa: N802
        return options

    def init(self, **options):
        run = types.SimpleNamespace(options=options, rows=[], summary={}, ends=[])
        run.log = lambda row, step: run.rows.append((step, row))
        run.finish = lambda exit_code: run.ends.append(exit_code)
        self.told.append(run)
        return run


def test_wandb_keeps_its_name_and_is_offline_unless_somebody_is_logged_in(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", stand_in := StandIn())
    monkeypatch.delenv("WANDB_MODE", raising=False)
    record = {"kind": "test", "step": 3, "seed": 1, "epoch": 1.0, "accuracy": {"a": 0.5}}
    for session in (0, 1):
        with writers.Writers(["wandb"], tmp_path, "run", {"seed": 0}, [0, 1]) as own:
            own.begin([record], 3)
            own.write(record | {"step": 4 + session})
            if session:
                own.finish({"steps": 5})
            if session == 0:
                monkeypatch.setenv("WANDB_MODE", "online")
    first, second = stand_in.told[:2], stand_in.told[2:]
    assert [r.options["id"] for r in first] == [r.options["id"] for r in second]
    assert len({r.options["id"] for r in first}) == 2
    assert {r.options["mode"] for r in first} == {"offline"}
    assert {r.options["mode"] for r in second} == {"online"}
    assert all(r.options["resume"] == "allow" for r in stand_in.told)
    row = {"test/epoch": 1.0, "test/accuracy/a": 0.5}
    assert first[0].rows == [] and first[1].rows == [(3, row), (4, row)]
    assert second[1].rows == [(5, row)]  # what it had is not told again
    assert [r.ends for r in stand_in.told] == [[1], [1], [0], [0]]
    assert second[0].summary == {"summary": {"steps": 5}}


def test_wandb_gets_all_records_if_its_first_start_failed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", stand_in := StandIn())
    init, record = stand_in.init, {"kind": "test", "step": 3, "seed": 0, "epoch": 1.0}

    def fail(**_):
        raise RuntimeError("no network")

    for stand_in.init in (fail, init):
        with writers.Writers(["wandb"], tmp_path, "run", {}, [0]) as own:
            own.begin([record], 3)
    assert [run.rows for run in stand_in.told] == [[(3, {"test/epoch": 1.0})]]


def test_wandb_itself_offline(tmp_path, monkeypatch, caplog):
    pytest.importorskip("wandb")
    for name, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "HOME": tmp_path}.items():
        monkeypatch.setenv(name, str(value))
    folder = tmp_path / "run"
    with caplog.at_level(logging.WARNING, "afd_jax"):
        assert command(folder, "--config.writers=('wandb',)", settings=SMALL) == 0
    assert not [m for m in caplog.messages if m.startswith("writer")]
    name = (folder / "wandb" / "seed_0.id").read_text()
    (kept,) = (folder / "wandb").glob(f"offline-run-*/run-{name}.wandb")
    content = kept.read_bytes()
    assert b"Tiny/loss/cross_entropy" in content and b"test/accuracy/Wider" in content
