"""One kind of error for every setting a person can get wrong."""

import difflib
from collections.abc import Iterable
from typing import Any


class SettingError(ValueError):
    """A setting that cannot work: one line that names field, value and remedy."""

    def __init__(self, field: str, value: Any, remedy: str):
        super().__init__(f"{field} = {value!r}: {remedy}")
        self.field = field
        self.value = value
        self.remedy = remedy


def one_of(value: Any, choices: Iterable[str]) -> str:
    """Words a remedy: the nearest choice if one is near, and all of them."""
    names = sorted(choices)
    near = difflib.get_close_matches(str(value), names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}Choose one of: {', '.join(names)}"


def require_number(
    field: str,
    value: Any,
    *,
    above: float | None = None,
    least: float | None = None,
    most: float | None = None,
    whole: bool = False,
) -> None:
    """Raises SettingError unless `value` is a number within the bounds (`above` is exclusive)."""
    bounds = [f"greater than {above}"] if above is not None else []
    bounds += [f"at least {least}"] if least is not None else []
    bounds += [f"at most {most}"] if most is not None else []
    kind = "a whole number" if whole else "a number"
    fits = (
        isinstance(value, int if whole else int | float)
        and not isinstance(value, bool)
        and (above is None or value > above)
        and (least is None or value >= least)
        and (most is None or value <= most)
    )
    if not fits:
        raise SettingError(field, value, " and ".join([f"must be {kind}", *bounds]))
