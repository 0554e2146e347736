"""One kind of error for every setting a person can get wrong."""

import contextlib
import difflib
import math
from collections.abc import Iterable, Iterator
from typing import Any


class SettingError(ValueError):
    """A setting that cannot work: one line that names field, value and remedy."""

    def __init__(self, field: str, value: Any, remedy: str):
        super().__init__(f"{shortened(field)} = {shortened(repr(value))}: {remedy}")
        self.field = field
        self.value = value
        self.remedy = remedy


_SHOWN = 200  # characters of a value in a message


def shortened(text: str) -> str:
    """The text, or its beginning and its length.

    >>> shortened("x" * 1000)[190:]
    'xxxxxxxxxx... (1000 characters)'
    """
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text)} characters)"


class UnreadableError(ValueError):
    """Data found to be damaged when read, possibly in a worker process."""


class StorageError(OSError):
    """Results that cannot be written: a disk is full, or not to be written on."""


class Diverged(Exception):
    """A measurement is not finite any more: going on would only cost time."""


class Interrupted(Exception):
    """Training was asked to stop; the state is saved."""


@contextlib.contextmanager
def naming(file: Any) -> Iterator[None]:
    """Lets an OSError raised inside name the file; one raised by writing to it does not."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(file)
        raise


@contextlib.contextmanager
def within(prefix: str) -> Iterator[None]:
    """Puts `prefix` and a dot before the field of a SettingError raised inside.

    >>> with within("method"):
    ...     raise SettingError("temperature", 0, "must be above 0")
    Traceback (most recent call last):
    afd_jax.errors.SettingError: method.temperature = 0: must be above 0
    """
    try:
        yield
    except SettingError as error:
        raise SettingError(f"{prefix}.{error.field}", error.value, error.remedy) from error


def one_of(value: Any, choices: Iterable[str]) -> str:
    """Words a remedy: the nearest choice, if any is near, and all, or the nearest of many."""
    names = sorted(choices)
    near = difflib.get_close_matches(str(value), names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    if len(names) <= 20:
        return f"{hint}Choose one of: {', '.join(names)}"
    nearest = difflib.get_close_matches(str(value), names, n=8, cutoff=0.0)
    return f"{hint}Choose one of: {', '.join(nearest)}, or {len(names) - 8} more"


def first_line(error: BaseException) -> str:
    """What an exception says, in one line; its type if it says nothing.

    >>> first_line(KeyError())
    'KeyError'
    """
    return (str(error).strip() or type(error).__name__).splitlines()[0]


_LONGEST = 2**31 - 1


def require_number(
    field: str,
    value: Any,
    *,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    most: float | None = None,
    whole: bool = False,
) -> None:
    """Raises SettingError unless `value` is a finite number within the bounds.

    `above` and `below` are exclusive, `least` and `most` inclusive. A whole number must be one that
    arrays can be as long as, unless `most` says otherwise.
    """
    if whole and most is None and below is None:
        most = None if not isinstance(value, int) or abs(value) <= _LONGEST else _LONGEST
    bounds = [
        f"{words} {bound}"
        for words, bound in (
            ("greater than", above),
            ("at least", least),
            ("less than", below),
            ("at most", most),
        )
        if bound is not None
    ]
    kind = "a whole number" if whole else "a number"
    fits = (
        isinstance(value, int if whole else int | float)
        and not isinstance(value, bool)
        and (isinstance(value, int) or math.isfinite(value))
        and (above is None or value > above)
        and (least is None or value >= least)
        and (below is None or value < below)
        and (most is None or value <= most)
    )
    if not fits:
        raise SettingError(field, value, " and ".join([f"must be {kind}", *bounds]))


def require_flag(field: str, value: Any) -> None:
    """Raises SettingError unless `value` is True or False."""
    if not isinstance(value, bool):
        raise SettingError(field, value, "must be True or False")


_LONGEST_NAME, _LONGEST_PATH = 255, 4095  # bytes, of Linux


def require_path(field: str, value: str) -> None:
    """Raises SettingError for a path that no file can have, as a name in it or all is too long."""
    path = value.encode(errors="replace")
    if max(map(len, path.split(b"/"))) > _LONGEST_NAME or len(path) > _LONGEST_PATH:
        remedy = f"is too long for a file: a name in it may have {_LONGEST_NAME} bytes, all of it "
        raise SettingError(field, value, f"{remedy}{_LONGEST_PATH}")


def require_list(field: str, value: Any) -> None:
    """Raises SettingError unless `value` is a list or tuple with something in it."""
    if not isinstance(value, list | tuple) or not value:
        raise SettingError(field, value, "must be a list of values")
