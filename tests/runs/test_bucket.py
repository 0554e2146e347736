"""Runs in a bucket of a real object server on this machine.

Skipped without it: `pip install s3fs 'moto[server]'`, and for gs:// `gcsfs gcp-storage-emulator`.
moto and s3fs pin boto's releases, one exactly and one in a range, which takes pip minutes to fit
together beside all else; so they are in no extra. The emulator of gs:// lets a file be created
twice, so only the lock of s3:// is tested.
"""

import contextlib
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from unittest import mock

import jax
import numpy as np
import pytest

from afd_jax.errors import Diverged, SettingError, StorageError
from afd_jax.runs import bucket, bucket_lock, bucket_store, signals
from afd_jax.runs.bucket import at_hand, mirrored
from afd_jax.runs.bucket_lock import BucketLock
from afd_jax.runs.trained import load
from tests.running import CONFIG, ROOT, SETTINGS, command, lines

MORE = ("--config.checkpoint_every=3 steps", "--config.eval_every=1 epochs")


@pytest.fixture(scope="module")
def s3():
    """Address of a server."""
    pytest.importorskip("s3fs", reason="needs the extra s3")
    server = pytest.importorskip("moto.server", reason="needs moto's server")
    own = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    own.start()
    yield "http://{}:{}".format(*own.get_host_and_port())
    own.stop()


@pytest.fixture(scope="module")
def gs():
    """Address of a server."""
    # Else it asks by gRPC, which the emulator does not speak, and waits for a minute. Read once.
    os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
    pytest.importorskip("gcsfs", reason="needs the extra gcs")
    emulator = pytest.importorskip("gcp_storage_emulator.server", reason="needs an emulator")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = emulator.create_server("127.0.0.1", port, in_memory=True)
    own.start()
    yield f"http://127.0.0.1:{port}"
    own.stop()


@pytest.fixture(params=["s3", "gs"])
def address(request, monkeypatch, tmp_path):
    """Of a run in a new bucket."""
    server = request.getfixturevalue(request.param)
    own = f"bucket-{abs(hash(str(tmp_path)))}"
    if request.param == "s3":
        import boto3

        monkeypatch.setenv("AWS_ENDPOINT_URL", server)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        boto3.client("s3").create_bucket(Bucket=own)
    else:
        import fsspec
        import gcsfs

        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server)
        monkeypatch.setenv("FSSPEC_GS_TOKEN", "anon")  # of a command
        monkeypatch.setitem(fsspec.config.conf, "gs", {"token": "anon"})
        gcsfs.GCSFileSystem(token="anon", project="own", skip_instance_cache=True).mkdir(own)
    # Copies of a bucket are apart from those of other tests; compiled programs are shared.
    monkeypatch.setattr(bucket, "cache_dir", tmp_path.joinpath)
    return f"{request.param}://{own}/runs/one"


only_s3 = pytest.mark.parametrize("address", ["s3"], indirect=True)


def objects(address):
    return bucket.Store(address).names()


def settled(records):
    """Without what depends on the clock."""
    return [{k: v for k, v in r.items() if not k.endswith(("second", "seconds"))} for r in records]


def test_a_run_whose_machine_is_lost_goes_on_elsewhere(address, tmp_path):
    long = ("--config.duration=60 epochs", "--config.checkpoint_every=6 steps")

    def begin(workdir, machine):
        where = {**os.environ, "AFD_JAX_CACHE": str(tmp_path / machine)}
        words = [f"--config={CONFIG}", f"--workdir={workdir}", *SETTINGS, *MORE, *long]
        line = [sys.executable, "-m", "afd_jax", *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen(line, cwd=ROOT, env=where, text=True, **pipes)

    run, start = begin(address, "machine"), time.monotonic()
    while not any(n.endswith("_CHECKPOINT_METADATA") for n in objects(address)):
        assert run.poll() is None and time.monotonic() - start < 300, run.communicate()[0]
        time.sleep(0.1)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    kept = {n for n in objects(address) if n.endswith("_CHECKPOINT_METADATA")}
    assert kept and "summary.json" not in objects(address)
    outputs = load(address, "Tiny", trust=True)(np.zeros((2, 8, 8, 1), np.uint8))
    assert outputs.logits.shape == (2, 10)
    words, _ = begin(address, "another").communicate(timeout=300)
    assert "continuing" in words
    begin(tmp_path / "disk", "machine").communicate(timeout=300)
    require_equal(address, tmp_path / "disk")


def require_equal(address, disk):
    """The metrics and the arrays of a finished run in a bucket are those of one on disk."""
    assert settled(lines(at_hand(address))) == settled(lines(disk))
    ours, theirs = (load(w, "Tiny", trust=True).variables for w in (address, disk))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


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
    require_equal(address, tmp_path / "disk")
    folders = {n.split("/")[1] for n in objects(address) if n.startswith("checkpoints/")}
    on_disk = {p.name for p in (tmp_path / "disk" / "checkpoints").iterdir()}
    assert folders == on_disk  # old checkpoints are removed there, too
    assert not list((tmp_path / "buckets" / "write").iterdir())


@only_s3
def test_one_program_at_a_time(address, monkeypatch):
    monkeypatch.setattr(bucket_lock, "_STILL", 2.5)
    store = bucket.Store(address)
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
    other.update(machine=bucket_lock._machine(), pid=done.pid)
    beat(0)
    monkeypatch.setattr(bucket_lock, "_STILL", 1e9)
    with lock():
        pass
    assert not store.files.exists(path)


@pytest.fixture
def in_memory(monkeypatch, tmp_path):
    """Of a run in a bucket that this process makes up; only its lock is left out."""
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.setattr(bucket, "cache_dir", tmp_path.joinpath)
    monkeypatch.setattr(bucket, "BucketLock", lambda *_: contextlib.nullcontext(mock.Mock()))
    monkeypatch.setattr(bucket_store, "_PACKAGES", {"memory": ("fsspec", "s3")})
    fsspec.filesystem("memory").store.clear()
    return "memory://bucket/run"


def interrupted(address, monkeypatch, **files):
    """A run that writes files, of which none can be copied; returns its folder."""
    with pytest.raises(StorageError, match=r"cannot be written \(gone\); what is missing"):
        with monkeypatch.context() as patched, mirrored(address) as folder:
            for name, text in files.items():
                (folder / name).write_text(text)
            patched.setattr(bucket.Store, "put", gone)
    return folder


def test_the_next_run_continues_from_what_could_not_be_copied(in_memory, monkeypatch):
    with mirrored(in_memory) as folder:
        (folder / "metrics").write_text("1")
    assert objects(in_memory) == {"metrics": 1} and not [*folder.parent.iterdir()]
    for text in ("12", "123"):  # fails again
        interrupted(in_memory, monkeypatch, metrics=text)
    with mirrored(in_memory) as folder:
        assert (folder / "metrics").read_text() == "123"
    assert objects(in_memory) == {"metrics": 3} and not [*folder.parent.iterdir()]


def test_a_failed_copy_does_not_hide_why_the_run_ended(in_memory, monkeypatch):
    ended = r"cannot be written \(gone\); .*; before that, the run ended: not finite at step 4$"
    with pytest.raises(StorageError, match=ended):
        with monkeypatch.context() as patched, mirrored(in_memory) as folder:
            (folder / "metrics").write_text("1")
            patched.setattr(bucket.Store, "put", gone)
            raise Diverged("not finite at step 4")


def test_what_could_not_be_copied_is_kept_if_the_run_went_on_elsewhere(
    in_memory, monkeypatch, caplog
):
    interrupted(in_memory, monkeypatch, metrics="12")
    bucket.Store(in_memory).files.pipe_file("/bucket/run/metrics", b"12345")
    for once in (True, False):
        with mirrored(in_memory) as folder:
            assert (folder / "metrics").read_text() == "12345"
        assert ("failed to copy all its files" in caplog.text) == once
        caplog.clear()
    (kept,) = folder.parent.iterdir()
    assert (kept / "metrics").read_text() == "12"


def test_a_folder_that_was_emptied_stays_empty(in_memory, monkeypatch):
    with mirrored(in_memory) as folder:
        (folder / "metrics").write_text("1")
    interrupted(in_memory, monkeypatch, metrics="12")
    bucket.Store(in_memory).files.rm("/bucket/run", recursive=True)
    with mirrored(in_memory) as folder:
        assert not [*folder.iterdir()]


def test_a_clean_up_that_is_cut_short_loses_nothing(in_memory, monkeypatch):
    files = {"metrics": "1", "checkpoints/4/data": "2", f"checkpoints/4/{bucket_store.MARKER}": ""}
    remove = bucket.shutil.rmtree

    def cut_short(folder, **options):
        if folder.is_dir():
            remove(folder / "checkpoints")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patched:
        with mirrored(in_memory) as folder:
            patched.setattr(bucket.shutil, "rmtree", cut_short)
            for name, text in files.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text(text)
    there = {name: len(text) for name, text in files.items()}
    assert objects(in_memory) == there
    with mirrored(in_memory) as folder:
        assert (folder / "checkpoints/4/data").read_text() == "2"
    assert objects(in_memory) == there and not [*folder.parent.iterdir()]


def test_a_bucket_that_goes_away_is_not_taken_for_a_file_that_does(in_memory, monkeypatch):
    def no_bucket(*_):
        raise FileNotFoundError("the bucket does not exist")

    with pytest.raises(StorageError, match=r"cannot be written \(the bucket does not exist\)"):
        with monkeypatch.context() as patched, mirrored(in_memory) as folder:
            (folder / "metrics").write_text("1")
            patched.setattr(bucket.Store, "put", no_bucket)
    assert (folder / "metrics").read_text() == "1"


class _Objects(dict):
    """What a lock needs of fsspec."""

    def invalidate_cache(self):
        pass

    def cat_file(self, path):
        if path not in self:
            raise FileNotFoundError(path)
        return self[path]

    def pipe_file(self, path, content, mode="overwrite"):
        if mode == "create" and path in self:
            raise FileExistsError(path)
        self[path] = content

    def rm_file(self, path):
        del self[path]


def test_a_lock_that_has_vanished_is_lost():
    objects = _Objects()
    with BucketLock(objects, "lock", "s3://bucket/run") as own:
        own.require()
        del objects["lock"]
        with pytest.raises(StorageError, match=r"s3://bucket/run: its lock\.json is gone"):
            own.require()


def until(condition):
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < 60
        time.sleep(0.01)


def test_a_lock_is_renewed_by_itself_and_its_loss_is_known(monkeypatch):
    """However long copies take."""
    monkeypatch.setattr(bucket_lock, "_RENEWED", 0.02)
    objects = _Objects()
    with BucketLock(objects, "lock", "s3://bucket/run") as own:
        until(lambda: json.loads(objects["lock"])["beat"] > 2)
        own.check()

        def taken_over():
            objects["lock"] = b'{"id": "other"}'
            return not own._thread.is_alive()

        until(taken_over)
        with pytest.raises(StorageError, match="another program took it over"):
            own.check()
    assert json.loads(objects["lock"])["id"] == "other"


@pytest.mark.parametrize("machine", ["this", "another"])
def test_a_process_number_counts_on_its_own_machine(machine, monkeypatch):
    if not bucket_lock._machine():
        pytest.skip("this system does not say which start of it this is")
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    own = {"host": socket.gethostname(), "pid": done.pid, "id": "other"}
    own["machine"] = bucket_lock._machine() if machine == "this" else "a container of that name"
    lock = BucketLock(_Objects(), "lock", "s3://bucket/run")
    assert lock._is_dead(json.dumps(own).encode()) == (machine == "this")


def test_a_run_that_has_lost_its_lock_saves_and_ends(in_memory, monkeypatch):
    lost = mock.Mock()
    lost.check.side_effect = lost.require.side_effect = StorageError("another has it")
    monkeypatch.setattr(bucket, "BucketLock", lambda *_: contextlib.nullcontext(lost))
    monkeypatch.setattr(bucket, "_PERIOD", 0.01)
    with pytest.raises(StorageError, match="another has it"), mirrored(in_memory):
        with signals.stop_signals() as stop:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as a worker of several processes does
            until(lambda: stop.asked)


def test_readers_share_a_copy(in_memory, monkeypatch):
    """It is whole while another fetches, and follows a change that leaves the size as it was."""
    store = bucket.Store(in_memory)
    names = ["config.json", "checkpoints/4/data", f"checkpoints/4/{bucket_store.MARKER}"]
    for name in names:
        store.files.pipe_file(f"/bucket/run/{name}", b"1")
    folder, fetched = at_hand(in_memory), []
    get = type(store.files).get_file

    def looked_at(own, path, file):
        assert all((folder / name).read_bytes() in (b"1", b"2") for name in names)
        fetched.append(path)
        get(own, path, file)

    monkeypatch.setattr(type(store.files), "get_file", looked_at)
    assert at_hand(in_memory) == folder and not fetched
    store.files.pipe_file("/bucket/run/checkpoints/4/data", b"2")
    store.files.pipe_file("/bucket/run/config.json", b"2")
    at_hand(in_memory)
    assert len(fetched) == 2 and (folder / "checkpoints/4/data").read_bytes() == b"2"
    store.files.rm_file(f"/bucket/run/checkpoints/4/{bucket_store.MARKER}")
    at_hand(in_memory)  # no longer whole
    assert [p.name for p in folder.rglob("*")] == ["config.json"]


def gone(*_):
    raise ConnectionError("gone")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://example.org/run", "begins with gs:// or s3://"),
        ("s3:/bucket/run", "begins with gs:// or s3://"),
        ("s3://bucket", "name a folder in a bucket, s3://bucket/run"),
        ("memory://a/b", "begins with gs:// or s3://"),
    ],
)
def test_other_addresses_are_refused(address, words, capsys):
    assert command(address) == 2
    assert words in capsys.readouterr().err


def test_a_bucket_that_is_not_there_is_named(address, capsys):
    other = f"{address.partition(':')[0]}://no-such-bucket-here/run"
    assert command(other) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: --workdir = '{other}': cannot be reached (")
    assert error.count("\n") == 1
