"""Reading PyTorch files without PyTorch; the two small ones were written by torch 2.13 itself."""

import collections
import os
import pathlib
import pickle
import shutil
import zipfile

import ml_dtypes
import numpy as np
import pytest

from afd_jax.errors import SettingError
from afd_jax.runs.pytorch_files import read_tensors

FOLDER = pathlib.Path(__file__).parents[1] / "reference"
WRITTEN = [FOLDER / "torch_zip.pth", FOLDER / "torch_legacy.pth"]


def read(file):
    return read_tensors("teachers[0]", str(file), pathlib.Path(file))


def refused(file):
    with pytest.raises(SettingError) as caught:
        read(file)
    assert caught.value.field == "teachers[0]"
    return caught.value.remedy


@pytest.mark.parametrize("file", WRITTEN, ids=lambda file: file.stem)
def test_what_torch_wrote(file):
    tensors = {name.removeprefix("module."): x for name, x in read(file).items()}
    whole = np.arange(24, dtype=np.float32).reshape(4, 6)
    wanted = {
        "transposed": whole.T,
        "sliced": whole[1:3, ::2],
        "half": np.array([0.5, -2], np.float16),
        "brain": np.array([0.5, -3], ml_dtypes.bfloat16),
        "double": np.array(0.1),
        "count": np.array(7),
    }
    assert {*tensors} == {*wanted}
    for name, array in wanted.items():
        assert tensors[name].dtype == array.dtype, name
        np.testing.assert_array_equal(tensors[name], array, err_msg=name)


def zipped(file, content, **records):
    """A file like torch's around any pickle."""
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        for name, data in records.items():
            archive.writestr(f"archive/data/{name.removeprefix('_')}", data)
    return file


class Calls:
    def __init__(self, function, *arguments):
        self.what = function, arguments

    def __reduce__(self):
        return self.what


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("function", [os.system, eval, os.mkdir], ids=lambda f: f.__name__)
def test_a_file_that_runs_code_is_refused(tmp_path, function, legacy):
    mark = tmp_path / "ran"
    argument = f"open({str(mark)!r}, 'w').close()" if function is eval else f"touch {mark}"
    argument = str(mark) if function is os.mkdir else argument
    content = pickle.dumps({"model": Calls(function, argument)}, protocol=2)
    file = tmp_path / "evil.pth"
    file.write_bytes(content) if legacy else zipped(file, content)
    words = refused(file)
    assert f".{function.__name__}, which is refused; save the weights alone" in words
    assert not mark.exists()
    pickle.loads(content)  # while pickle itself runs it
    assert mark.exists()


TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"
STORAGE = b"(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI%d\ntQ"


def one_tensor(*, size=6, offset=0, shape=b"(I2\nI3\nt", strides=b"(I3\nI1\nt"):
    """The pickle of {"a": tensor}, written out, so that it can be wrong."""
    arguments = b"(" + STORAGE % size + b"I%d\n" % offset + shape + strides
    return b"(dS'a'\n" + TENSOR + arguments + b"I00\nNtRs."


NUMBERS = np.arange(6, dtype="<f4").tobytes()


def test_a_pickle_written_out(tmp_path):
    file = zipped(tmp_path / "a.pt", one_tensor(), _0=NUMBERS)
    np.testing.assert_array_equal(read(file)["a"], np.arange(6).reshape(2, 3))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (one_tensor(offset=1), "a tensor that reaches beyond its numbers"),
        (one_tensor(offset=-1), "a tensor without a proper shape"),
        (one_tensor(strides=b"(I4\nI1\nt"), "a tensor that reaches beyond its numbers"),
        (one_tensor(strides=b"(I-3\nI1\nt"), "a tensor without a proper shape"),
        (one_tensor(strides=b"(I1\nt"), "a tensor without a proper shape"),
        (one_tensor(size=7), "archive/data/0 has another size than its tensors say"),
        (one_tensor().replace(b"FloatStorage", b"QInt8Storage"), "asks for torch.QInt8Storage"),
        (one_tensor()[:-9], "is damaged"),
        # BUILD may not change what stands for a name.
        (TENSOR + b"(dS'x'\nI1\nsb.", "holds no state dict"),
        (b"ctorch\nFloatStorage\n(dS'x'\nI1\nsb.", "is damaged"),
        (pickle.dumps([1, 2]), "the file holds no state dict"),
        (pickle.dumps({"model": {}, "net": {}}), "the file holds no state dict"),
        (pickle.dumps({"a": 1}), "the file holds no state dict"),
        (pickle.dumps(np.float64(1)), "scalar, which is refused"),
    ],
)
def test_a_wrong_pickle_is_refused(content, words, tmp_path):
    assert words in refused(zipped(tmp_path / "a.pth", content, _0=NUMBERS))


@pytest.mark.parametrize("file", WRITTEN, ids=lambda file: file.stem)
def test_a_truncated_or_damaged_file(file, tmp_path):
    data = file.read_bytes()
    for length in (0, 1, 20, len(data) // 2, len(data) - 1):
        (tmp_path / "cut.pth").write_bytes(data[:length])
        assert "is damaged or no file of PyTorch weights" in refused(tmp_path / "cut.pth"), length
    assert refused(tmp_path / "none.pth") == f"there is no file {tmp_path}/none.pth"


def test_other_archives(tmp_path):
    (tmp_path / "in").mkdir()
    shutil.copy(WRITTEN[0], tmp_path / "in")
    packed = shutil.make_archive(str(tmp_path / "weights"), "tar", tmp_path / "in")
    assert "is a tar archive; unpack it" in refused(packed)
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**6))
    assert "its archive is compressed" in refused(tmp_path / "bomb.pth")
    big = zipped(tmp_path / "big.pth", one_tensor(), _0=NUMBERS)
    with zipfile.ZipFile(big, "a") as archive:
        archive.writestr("archive/byteorder", "big")
    assert "big-endian" in refused(big)


def test_wrappers(tmp_path):
    inner = pickle.loads(pickle.dumps(collections.OrderedDict()))
    assert inner == {}
    plain = one_tensor()[:-1]  # without STOP
    for key in (b"model", b"state_dict", b"net", b"model_state_dict"):
        content = b"(dS'epoch'\nI3\nsS'" + key + b"'\n" + plain + b"s."
        file = zipped(tmp_path / f"{key.decode()}.pth", content, _0=NUMBERS)
        assert read(file)["a"].shape == (2, 3)


def test_safetensors(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    arrays = {"a": np.arange(6.0).reshape(2, 3), "h": np.ones(2, np.float16), "n": np.array(3)}
    arrays["b"] = np.ones(2, ml_dtypes.bfloat16)
    file = tmp_path / "a.safetensors"
    numpy.save_file(arrays, file)
    for name, array in read(file).items():
        assert array.dtype == arrays[name].dtype
        np.testing.assert_array_equal(array, arrays[name])
    file.write_bytes(file.read_bytes()[:-1])
    assert "is damaged or no file of PyTorch weights" in refused(file)
