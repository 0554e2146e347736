"""Images read from disk: the same batches as from memory, whoever decodes them."""

import dataclasses
import functools
import itertools
import json
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import time
import types

import jax
import numpy as np
import pytest

from afd_jax.data import sources, train_rows
from afd_jax.data.batches import eval_order
from afd_jax.data.outline import outline
from afd_jax.data.prefetch import prefetch_to_device
from afd_jax.data.sources import load_streamed
from afd_jax.data.streaming import Streamed, eval_stream, train_stream
from afd_jax.errors import SettingError, UnreadableError
from afd_jax.runs import assemble
from afd_jax.runs.settings import base_config
from tests.data.test_crops import encoded
from tests.data.test_data import TFDS_DIR
from tests.running import ROOT, command, ctrl_c_after, final_state

SAMPLE = pytest.mark.skipif(
    not (TFDS_DIR / "imagenet2012").is_dir(), reason="no prepared ImageNet here"
)


def streamed(count=20, workers=0, size=16, source=None):
    source = source or [
        {"image": encoded(40 + i, 60 - i, seed=i), "label": 100 + i} for i in range(count)
    ]
    return Streamed(source, size, np.arange(count, dtype=np.int32), workers, "fake train", "1")


def train(data, batch_size=6, seed=3, start=0, end=6):
    stream = train_stream(data, batch_size, seed=seed, start_step=start, end_step=end)
    batches = list(stream)
    stream.close()
    return batches


def assert_equal(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            assert one[name].dtype == other[name].dtype
            np.testing.assert_array_equal(one[name], other[name])


def test_the_order_is_that_of_sets_in_memory():
    batches = train(streamed().take(np.arange(19)[::-1]), start=1, end=8)
    rows = list(train_rows(19, 6, seeds=(3,), start_step=1, end_step=8))
    np.testing.assert_array_equal([batch["index"] for batch in batches], rows)
    for batch in batches:
        np.testing.assert_array_equal(batch["label"], 118 - batch["index"])
        assert batch["image"].shape == (6, 16, 16, 3) and batch["image"].dtype == np.uint8
        assert batch["label"].dtype == batch["index"].dtype == np.int32


def test_resumed_in_mid_epoch_it_gives_exactly_the_rest():
    whole = train(streamed(18))
    assert_equal(whole[2:], train(streamed(18), start=2))
    for epoch in (whole[:3], whole[3:]):
        assert sorted(np.concatenate([batch["index"] for batch in epoch])) == list(range(18))
    assert train(streamed(18), start=6) == []


def by_index(batches):
    pairs = [zip(b["index"].tolist(), b["image"], strict=True) for b in batches]
    return {i: image.tobytes() for i, image in itertools.chain(*pairs)}


def test_augmentation_is_a_function_of_seed_epoch_and_row():
    data = streamed(18)
    epoch = by_index(train(data, end=3))
    assert epoch == by_index(train(data, batch_size=9, end=2))
    for other in (train(data, start=3, end=6), train(data, seed=4, end=3)):
        assert all(epoch[i] != image for i, image in by_index(other).items())


class Nosy(list):
    """A source whose labels tell what the process that reads it is like."""

    def __getitem__(self, row):
        from jax._src import xla_bridge

        ignores = [signal.getsignal(s) is signal.SIG_IGN for s in (signal.SIGINT, signal.SIGTERM)]
        here = multiprocessing.parent_process() is not None
        label = here + 10 * all(ignores) + 100 * xla_bridge.backends_are_initialized()
        return {**super().__getitem__(row), "label": label}


def test_workers_change_no_byte_and_touch_no_device():
    data = streamed()
    alone, one, two = (
        train(dataclasses.replace(data, workers=workers), end=7) for workers in (0, 1, 2)
    )
    assert_equal(alone, one)
    assert_equal(alone, two)
    two = dataclasses.replace(data, workers=2, source=Nosy(data.source))
    tested = list(eval_stream(two, 8))
    assert np.all(np.concatenate([b["label"][b["mask"]] for b in tested]) == 11)
    for ours, theirs in zip(eval_stream(data, 8), tested, strict=True):
        np.testing.assert_array_equal(ours["image"], theirs["image"])


def test_a_stream_can_be_closed_before_its_end():
    stream = train_stream(streamed(workers=1), 6, seed=0, start_step=0, end_step=1000)
    batches = prefetch_to_device(stream, lambda batch: batch)
    assert next(batches)["label"].shape == (6,) and multiprocessing.active_children()
    batches.close()
    assert not multiprocessing.active_children() and list(stream) == list(batches) == []


def test_hosts_share_out_a_batch(monkeypatch):
    data = streamed()
    whole, tested = train(data, end=2), list(eval_stream(data, 8))
    parts, tested_parts = [], []
    for host in range(2):
        monkeypatch.setattr(jax, "process_count", lambda: 2)
        monkeypatch.setattr(jax, "process_index", lambda host=host: host)
        parts.append(train(data, end=2))
        tested_parts.append(list(eval_stream(data, 8)))
    assert parts[0][0]["image"].shape[0] == 3
    for batches, hosts in ((whole, parts), (tested, tested_parts)):
        joined = [
            {name: np.concatenate([one[name], other[name]]) for name in one}
            for one, other in zip(*hosts, strict=True)
        ]
        assert_equal(batches, joined)


def test_evaluation_sees_every_example_once():
    batches = list(eval_stream(streamed(), 8))
    assert [batch["mask"].sum() for batch in batches] == [8, 8, 4]
    labels = np.concatenate([batch["label"][batch["mask"]] for batch in batches])
    assert labels.tolist() == (100 + eval_order(20)).tolist()
    assert not batches[-1]["image"][4:].any() and batches[-1]["image"][:4].all((1, 2, 3)).any()


@pytest.mark.parametrize(("mode", "kind"), [("L", "JPEG"), ("CMYK", "JPEG"), ("L", "PNG")])
def test_other_modes_become_rgb(mode, kind):
    source = [{"image": encoded(mode=mode, kind=kind), "label": 0}]
    image = next(eval_stream(streamed(1, source=source), 1))["image"][0]
    assert image.shape == (16, 16, 3)
    assert np.all(image == image[..., :1]) == (mode == "L")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_named(workers):
    data = streamed(workers=workers)
    data.source[7]["image"] = data.source[7]["image"][:-300]
    with pytest.raises(UnreadableError, match=r"row 7 of fake train cannot be read: .*truncated"):
        list(eval_stream(data.take(slice(5, 10)), 3))


def test_the_fingerprint_is_that_of_source_and_rows():
    data = streamed()
    digests = [data.digest, data.take(slice(19)).digest, data.take(slice(None, None, -1)).digest]
    digests.append(dataclasses.replace(data, identity="2").digest)
    assert len({*digests}) == 4 and data.take(slice(None)).digest == data.digest
    assert data.image_shape == (16, 16, 3)


SCRIPT = """
import multiprocessing
from tests.data.test_streaming import streamed, train_stream
if __name__ == "__main__":
    stream = train_stream(streamed(workers=1), 4, seed=0, start_step=0, end_step=1000)
    next(stream)
    print(*[child.pid for child in multiprocessing.active_children()], flush=True)
    input()
"""


def test_workers_end_with_the_process_that_they_work_for(tmp_path):
    root = pathlib.Path(__file__).parents[2]
    (tmp_path / "script.py").write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    with process:
        workers = [int(pid) for pid in process.stdout.readline().split()]
        process.kill()
    until = time.monotonic() + 20
    while any(map(running, workers)) and time.monotonic() < until:
        time.sleep(0.1)
    assert workers and not any(map(running, workers))


def running(pid):
    try:
        # One that has ended stays listed until its new parent, which may never do so, asks.
        return "\nState:\tZ" not in pathlib.Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


@SAMPLE
def test_imagenet_without_tensorflow():
    def load(**options):
        return load_streamed("imagenet2012", data_dir=str(TFDS_DIR), image_size=64, **options)

    splits = load(heldout=0.1, workers=2)
    parts = (splits.train, splits.heldout, splits.test)
    assert [len(part) for part in parts] == [180, 20, 50] and splits.classes == 1000
    assert sorted([*splits.train.rows, *splits.heldout.rows]) == list(range(200))
    assert len({part.digest for part in parts}) == 3
    assert splits.heldout.digest == load(heldout=0.1).heldout.digest
    few = load(limit=7)
    assert [len(part) for part in (few.train, few.heldout, few.test)] == [7, 0, 7]
    alone = load(heldout=0.1)
    assert_equal(train(splits.train, 32, end=2), train(alone.train, 32, end=2))
    assert "tensorflow" not in sys.modules


def test_labels_that_are_secret_are_no_test_set():
    def split(**labels):
        builder = types.SimpleNamespace(
            info=types.SimpleNamespace(name="set", splits=labels),
            as_data_source=lambda split, decoders: [{"image": b"", "label": labels[split]}],
        )
        return sources.test_split(builder, None)

    assert split(test=-1, validation=0) == split(validation=0) == "validation"
    assert split(test=0, validation=0) == "test"
    with pytest.raises(SettingError, match=r"data\.name = 'set': has neither .* with labels"):
        split(test=-1)


@pytest.mark.parametrize("name", ["digits", "arrays"])
def test_sets_that_are_not_streamed_are_named(name):
    for make in (load_streamed, functools.partial(outline, stream=True)):
        with pytest.raises(SettingError, match=r"data\.stream = True: .* is loaded into memory"):
            make(name)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, r"data\.data_dir = .*download=True"),
        ({"download": True}, r"data\.download = True: .*downloads/manual: .*img_train\.tar"),
        ({"name": "no_such_set"}, r"data\.name = 'no_such_set': TFDS has no data set"),
        ({"data_dir": "/no/such"}, r"data\.data_dir = '/no/such': no such folder"),
        ({"image_size": 0}, r"data\.image_size = 0"),
        ({"workers": -1}, r"data\.workers = -1"),
        ({"heldout": 1}, r"data\.heldout = 1"),
    ],
)
def test_bad_settings_are_named(options, words, tmp_path):
    with pytest.raises(SettingError, match=words):
        load_streamed(**{"name": "imagenet2012", "data_dir": str(tmp_path), **options})


def test_a_share_that_holds_nothing_out_is_named():
    with pytest.raises(SettingError, match=r"data\.heldout = 0\.01: cannot hold out"):
        sources._hold_out(streamed(), 0.01)


@pytest.mark.parametrize(("given", "side"), [(None, 224), (64, 64)])
def test_streamed_images_are_of_224_unless_told(given, side, monkeypatch):
    asked = {}
    monkeypatch.setattr(assemble, "load_streamed", lambda name, **options: asked.update(options))
    config = base_config()
    config.data.stream, config.data.image_size = True, given
    assemble.load_splits(config.data)
    assert asked["image_size"] == side


def test_without_grain_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(SettingError, match=r"pip install 'afd-jax\[streaming\]'"):
        load_streamed("imagenet2012", data_dir=str(tmp_path))


STREAMED = (
    "--config.data.limit=64",
    "--config.data.image_size=16",
    "--config.data.workers=0",
    "--config.batch_size=16",
    "--config.eval_batch_size=25",
    "--config.duration=2 epochs",
    "--config.log_every=1 steps",
    "--config.parallel.devices=1",
    f"--config.data.data_dir={TFDS_DIR}",
)


@SAMPLE
def test_a_run_from_disk_continues_bit_equal(tmp_path, monkeypatch):
    config = f"{ROOT}/configs/imagenet_dml.py:tests.tiny:Tiny,tests.tiny:Tiny"

    def run(name):
        return command(tmp_path / name, config=config, settings=STREAMED)

    assert run("whole") == 0
    ctrl_c_after(monkeypatch, 5)  # in the middle of the second epoch
    assert run("cut") == 130
    monkeypatch.undo()
    assert run("cut") == 0
    ours, theirs = (
        final_state(tmp_path / name, config=config, settings=STREAMED) for name in ("whole", "cut")
    )
    assert int(ours.step) == 8
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    facts = json.loads((tmp_path / "whole" / "data.json").read_text())
    assert (facts["train"], facts["test"], facts["image_shape"]) == (64, 50, [16, 16, 3])


@SAMPLE
@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ("--config.data.pad=4", "config.data.pad = 4: streamed images are cut and flipped"),
        ("--config.seeds=2", "config.seeds = 2: streamed batches are of one seed"),
        ("--config.method.name=cs_kd", "config.data.stream = True: the method pairs images"),
        ("--config.data.workers=-1", "config.data.workers = -1: must be a whole number"),
        ("--config.data.name=tfds:imagenet", "config.data.name = 'imagenet': TFDS has no data set"),
    ],
)
def test_mistakes_with_streams_are_named(mistake, words, tmp_path, capsys):
    config = f"{ROOT}/configs/imagenet_dml.py:tests.tiny:Tiny,tests.tiny:Tiny"
    assert command(tmp_path / "new", mistake, config=config, settings=STREAMED) == 2
    assert capsys.readouterr().err.startswith(f"error: {words}")
