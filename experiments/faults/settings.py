"""Settings with one or two generated values, as on a command line; nothing is trained."""

import functools
import math
from typing import Any

import ml_collections
from hypothesis import strategies as st

from afd_jax.errors import SettingError
from afd_jax.runs.assemble import assemble
from afd_jax.runs.overrides import fill_options, read_config
from experiments.faults.fuzz import refusal

_NETWORK = "experiments.faults.one_layer:OneLayer"
_CONFIGS = {
    "digits_afd": f"{_NETWORK},{_NETWORK}",
    "cifar100_dml": f"{_NETWORK},{_NETWORK}",
    "cifar100_ps_kd": _NETWORK,
    "cifar100_kdcl": f"{_NETWORK},{_NETWORK}",
}
# So that each can be assembled from the small set at hand.
_SMALL = ("data.name=digits", "data.limit=96", "batch_size=16", "data.heldout=0.2")
_NEGATIVE = ("data.mean", "data.std")  # lists that need not be above 0 in each place
_WORDS = ["", "None", "nan", "inf", "-inf", "1e999", "-1", "0", "1", "2", "3.5", "1e-3", "1e9"]
_WORDS += ["True", "False", "()", "(1,)", "('a','b')", "[1, 2]", "{}", "{'a': 1}", "a", "é", "()("]
_WORDS += ["4294967296", "18446744073709551616", "2 epochs", "3 steps", "0 steps", "-1 epochs"]
_WORDS += ["1e400 steps", "x" * 3000, "lambda: 0", "__import__('os')", "\\0", "a\nb", " ", "0x10"]
_PLAUSIBLE = ["0.01", "0.1", "0.5", "2.0", "4", "10", "16", "0.25 epochs", "5 steps", "None"]
_WORDS += ["cosine", "adam", "sgd", "step", "afd", "dml", "own", "cyclic", "all_pairs", "none"]


@functools.cache
def _config(name: str) -> ml_collections.ConfigDict:
    overrides = [f"--config.{setting}" for setting in _SMALL]
    return read_config(f"{name}:{_CONFIGS[name]}", overrides)


@functools.cache
def _fields(name: str) -> tuple[str, ...]:
    def under(block: Any, path: str) -> list[str]:
        if not isinstance(block, ml_collections.ConfigDict):
            return [path]
        return [f for key in block for f in under(block[key], f"{path}.{key}".lstrip("."))]

    return tuple(sorted(under(fill_options(_config(name)), "")))


@st.composite
def overrides(draw: Any) -> tuple[str, tuple[str, ...]]:
    """A config and one or two overrides."""
    name = draw(st.sampled_from([*_CONFIGS]))
    values = st.one_of(
        st.sampled_from(_PLAUSIBLE),
        st.sampled_from(_WORDS),
        st.floats().map(str),
        st.integers(-(2**70), 2**70).map(str),
        st.text(max_size=20),
    )
    given = []
    for _ in range(draw(st.integers(1, 2))):
        given.append(f"--config.{draw(st.sampled_from(_fields(name)))}={draw(values)}")
    return name, tuple(given)


def judge(case: tuple[str, tuple[str, ...]]) -> str:
    """Reads and assembles the settings."""
    name, given = case
    all_of_them = [*(f"--config.{setting}" for setting in _SMALL), *given]
    try:
        config = read_config(f"{name}:{_CONFIGS[name]}", all_of_them)
        assemble(config, outlined=True)
    except Exception as error:
        return refusal(error, (SettingError,), case)
    before = fill_options(_config(name))
    for override in given:
        path = override.partition("=")[0].removeprefix("--config.")
        wrong = _wrong(path, _at(before, path), _at(config, path))
        if wrong:
            return f"accepted {wrong}: {str(case)[:200]}"
    return "accepted"


def _at(config: Any, path: str) -> Any:
    for key in path.split("."):
        config = config.get(key) if isinstance(config, ml_collections.ConfigDict) else None
    return config


def _wrong(path: str, old: Any, new: Any) -> str | None:
    """What no setting of this kind can be, whatever the program says."""
    numbers = [new] if isinstance(new, float | int) else new if isinstance(new, tuple) else []
    for number in numbers:
        if isinstance(number, float) and not math.isfinite(number):
            return "a number that is not finite"
        if isinstance(number, float | int) and number < 0 and path not in _NEGATIVE:
            return "a negative number"
        if isinstance(old, int) and isinstance(number, int) and abs(number) >= 2**63:
            return "a number that no array can hold"
    if isinstance(old, bool) != isinstance(new, bool) and old is not None and new is not None:
        return f"{type(new).__name__} for {type(old).__name__}"
    if isinstance(old, float | int) and isinstance(new, str):
        return "text for a number"
    if isinstance(old, str) and isinstance(new, float | int):
        return "a number for text"
    return None
