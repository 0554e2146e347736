"""Runs in a bucket of a real object server on this machine.

Skipped without it: `pip install s3fs 'moto[server]'`. Both pin boto's releases, one exactly and one
in a range, which takes pip minutes to fit together beside all else; so they are in no extra.
"""

import functools
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from afd_jax.errors import SettingError, StorageError
from afd_jax.runs import bucket, bucket_lock
from afd_jax.runs.bucket import at_hand, mirrored
from afd_jax.runs.bucket_lock import BucketLock
from afd_jax.runs.trained import load
from tests.running import CONFIG, ROOT, SETTINGS, command, lines

pytest.importorskip("s3fs", reason="needs the extra s3")
pytest.importorskip("moto", reason="needs moto's server")

MORE = ("--config.checkpoint_every=3 steps", "--config.eval_every=1 epochs")


@pytest.fixture(scope="module")
def server():
    from moto.server import ThreadedMotoServer

    own = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    own.start()
    yield "http://{}:{}".format(*own.get_host_and_port())
    own.stop()


@pytest.fixture
def address(server, monkeypatch, tmp_path):
    """Of a run in a new bucket."""
    import boto3

    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    own = f"bucket-{abs(hash(str(tmp_path)))}"
    boto3.client("s3").create_bucket(Bucket=own)
    # Copies of a bucket are apart from those of other tests; compiled programs are shared.
    monkeypatch.setattr(bucket, "cache_dir", tmp_path.joinpath)
    return f"s3://{own}/runs/one"


def objects(address):
    return bucket._Store(address).names()


def settled(records):
    """Without what depends on the clock."""
    return [{k: v for k, v in r.items() if not k.endswith(("second", "seconds"))} for r in records]


def test_a_run_whose_machine_is_lost_leaves_a_checkpoint_that_loads(address, tmp_path):
    where = {**os.environ, "AFD_JAX_CACHE": str(tmp_path / "machine")}
    words = [f"--config={CONFIG}", f"--workdir={address}", *SETTINGS, *MORE]
    line = [sys.executable, "-m", "afd_jax", *words, "--config.duration=400 epochs"]
    run = subprocess.Popen(line, cwd=ROOT, env=where, stderr=subprocess.PIPE, text=True)
    begin = time.monotonic()
    while not any(n.endswith("_CHECKPOINT_METADATA") for n in objects(address)):
        assert run.poll() is None and time.monotonic() - begin < 300, run.communicate()[1]
        time.sleep(0.3)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    kept = {n for n in objects(address) if n.endswith("_CHECKPOINT_METADATA")}
    assert kept and "summary.json" not in objects(address)
    assert load(address, "Tiny", trust=True)(np.zeros((2, 8, 8, 1), np.uint8)).logits.shape == (
        2,
        10,
    )


def test_a_run_in_a_bucket_equals_one_on_disk(address, tmp_path, monkeypatch, capsys):
    assert command(tmp_path / "disk", *MORE) == 0
    from tests.running import ctrl_c_after

    with monkeypatch.context() as patched:
        ctrl_c_after(patched, 8)
        assert command(address, *MORE) == 130
    there = objects(address)
    assert "config.json" in there and "summary.json" not in there
    assert command(address, *MORE) == 0
    assert "continuing" in capsys.readouterr().out
    copy = at_hand(address)
    assert settled(lines(copy)) == settled(lines(tmp_path / "disk"))
    ours, theirs = (load(w, "Tiny", trust=True).variables for w in (address, tmp_path / "disk"))
    assert json.dumps(jax_sums(ours)) == json.dumps(jax_sums(theirs))
    folders = {n.split("/")[1] for n in objects(address) if n.startswith("checkpoints/")}
    on_disk = {p.name for p in (tmp_path / "disk" / "checkpoints").iterdir()}
    assert folders == on_disk  # old checkpoints are removed there, too
    assert not list((tmp_path / "buckets" / "write").iterdir())


def jax_sums(variables):
    import jax

    return {
        jax.tree_util.keystr(p): float(np.sum(x)) for p, x in jax.tree.leaves_with_path(variables)
    }


def test_one_program_at_a_time(address, monkeypatch):
    monkeypatch.setattr(bucket_lock, "_STILL", 2.5)
    store = bucket._Store(address)
    path = f"{store.root}/lock.json"
    lock = functools.partial(BucketLock, store.files, path, address)
    other = {"host": "elsewhere", "pid": 7, "id": "other"}

    def beat(n):
        store.files.pipe_file(path, json.dumps({**other, "beat": n}).encode())

    # Somebody who is alive: the lock changes while we look.
    beat(0)
    content = BucketLock._content
    monkeypatch.setattr(
        BucketLock, "_content", lambda own: (content(own), beat(time.monotonic()))[0]
    )
    with pytest.raises(SettingError, match=r"trains in this folder .process 7 of elsewhere"):
        lock().__enter__()
    monkeypatch.setattr(BucketLock, "_content", content)
    # Somebody who is gone.
    with lock() as own:
        assert json.loads(store.files.cat_file(path))["id"] == own._own["id"]
        beat(9)  # ... but came back
        with pytest.raises(StorageError, match="another program took it over"):
            own.require()
    assert store.files.exists(path)
    # A program of this machine that was killed is known to be gone.
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    other.update(host=bucket_lock.socket.gethostname(), pid=done.pid)
    beat(0)
    monkeypatch.setattr(bucket_lock, "_STILL", 1e9)
    with lock():
        pass
    assert not store.files.exists(path)


def test_what_could_not_be_copied_stays_on_the_machine(address, monkeypatch):
    with pytest.raises(StorageError, match=r"cannot be written \(gone\); what is missing"):
        with mirrored(address) as folder:
            (folder / "config.json").write_text("{}")
            monkeypatch.setattr(bucket._Store, "put", gone)
    assert (folder / "config.json").is_file()


def gone(*_):
    raise ConnectionError("gone")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://example.org/run", "begins with gs:// or s3://"),
        ("s3://bucket", "name a folder in a bucket, s3://bucket/run"),
        ("memory://a/b", "begins with gs:// or s3://"),
    ],
)
def test_other_addresses_are_refused(address, words, capsys):
    assert command(address) == 2
    assert words in capsys.readouterr().err


def test_a_bucket_that_is_not_there_is_named(address, capsys):
    assert command("s3://no-such-bucket-here/run") == 2
    error = capsys.readouterr().err
    assert error.startswith(
        "error: --workdir = 's3://no-such-bucket-here/run': cannot be reached ("
    )
    assert error.count("\n") == 1
