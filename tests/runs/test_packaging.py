"""What is installed: the wheel's content, the extras, and every config, by its name."""

import configparser
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

from afd_jax import methods, networks
from afd_jax.errors import SettingError
from afd_jax.runs.configs import configs_folder, find_config, list_configs
from afd_jax.runs.overrides import read_config

ROOT = pathlib.Path(__file__).parents[2]
CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
# What only the extras bring.
EXTRA = (
    "PIL",
    "array_record",
    "grain",
    "importlib_resources",
    "matplotlib",
    "sklearn",
    "tensorflow_datasets",
    "tqdm",
)


def test_the_wheel_carries_every_room_and_the_configs(tmp_path):
    pytest.importorskip("setuptools", minversion="70.1", reason="needs the extra dev")
    source = tmp_path / "source"
    source.mkdir()
    for file in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    for folder in ("afd_jax", "configs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, source / folder, ignore=ignored)
    wheel = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    offline = ["--no-index", "--disable-pip-version-check"]
    subprocess.run([*wheel, *offline, "-w", tmp_path, source], check=True, capture_output=True)
    (built,) = tmp_path.glob("*.whl")

    with zipfile.ZipFile(built) as content:
        names = set(content.namelist())
        (info,) = (name for name in names if name.endswith("/METADATA"))
        metadata = content.read(info).decode()
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "afd_jax").rglob("*.py")}
    configs = {f"afd_jax/configs/{name}.py" for name in CONFIGS}
    assert {name for name in names if name.endswith(".py")} == modules | configs
    assert "afd_jax/py.typed" in names
    always = re.findall(r"^Requires-Dist: ([\w-]+)(?!.*extra ==)", metadata, re.MULTILINE)
    few = {
        "absl-py",
        "flax",
        "jax",
        "ml-collections",
        "numpy",
        "optax",
        "orbax-checkpoint",
        "scipy",
    }
    assert set(always) == few


def test_setup_names_every_room():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    rooms = {path.parent for path in (ROOT / "afd_jax").rglob("__init__.py")}
    named = {".".join(room.relative_to(ROOT).parts) for room in rooms} | {"afd_jax.configs"}
    assert set(setup["options"]["packages"].split()) == named


@pytest.mark.parametrize("room", ["losses", "graph", "networks", "methods", "engine"])
def test_a_room_needs_no_extra(room):
    code = f"import sys; sys.modules.update(dict.fromkeys({EXTRA})); import afd_jax.{room}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_loads_by_name_and_fits_its_method(name):
    config = read_config(name)
    options = config.method.to_dict()
    methods.make(options.pop("name"), options)
    assert all(network in networks.NAMES for network in config.networks)
    assert read_config(f"{name}:smoke").duration == "24 steps"


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_says_how_to_run_it(name):
    docstring = (ROOT / "configs" / f"{name}.py").read_text().split('"""')[1]
    assert re.search(rf"^  afd-train --config={name}(:\S+)? ", docstring, re.MULTILINE)
    assert name == "digits_afd" or "What to expect" in docstring
    # Networks that it names exist.
    for names in re.findall(r"^  ([a-z][\w-]+,[a-z][\w-]+) ", docstring, re.MULTILINE):
        assert set(names.split(",")) <= set(networks.NAMES)


def test_a_path_wins_over_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config("digits_afd") == configs_folder() / "digits_afd.py"
    assert find_config("digits_afd.py") == configs_folder() / "digits_afd.py"
    (tmp_path / "digits_afd.py").touch()
    assert find_config("digits_afd.py") == pathlib.Path("digits_afd.py")


@pytest.mark.parametrize("name", ["digits_adf", "somewhere/digits_adf.py"])
def test_an_unknown_name_gets_a_near_one(name):
    with pytest.raises(SettingError, match=r"no such file, .* did you mean 'digits_afd'"):
        find_config(name)


def test_a_list_has_the_first_line_of_every_config():
    assert list_configs().keys() == set(CONFIGS)
    assert list_configs()["digits_afd"].startswith("Quick start: two small networks")
    assert all(list_configs().values())
