"""Studies: settings times seeds, trained to the end, compared seed by seed.

A study is a module here with a `STUDY`; `python -m experiments.study NAME` trains what it lacks.
"""

import importlib
import pathlib

from afd_jax.errors import SettingError, one_of
from experiments.studies.study import Study

_PARTS = ("digits", "figures", "records", "runner", "statistics", "study", "tables")
NAMES = tuple(
    sorted(
        path.stem
        for path in pathlib.Path(__file__).parent.glob("[a-z]*.py")
        if path.stem not in _PARTS
    )
)


def load(name: str) -> Study:
    """The study of that name.

    Raises:
      SettingError: if there is none.
    """
    if name not in NAMES:
        raise SettingError("NAME", name, one_of(name, NAMES))
    study: Study = importlib.import_module(f"experiments.studies.{name}").STUDY
    return study
