"""How long something lasts: "300 epochs", "2 steps", "1e6 examples"."""

import re

from afd_jax.errors import SettingError, require_number

UNITS = ("steps", "epochs", "examples")
_MOST_STEPS = 2**31 - 1  # the state counts steps in int32


def to_steps(field: str, duration: str, *, batch_size: int, examples: int) -> int:
    """Converts a duration such as "300 epochs" to training steps, at least 1.

    Args:
      field: name of the setting, for errors.
      duration: a number and one of steps, epochs, examples.
      batch_size: examples per step.
      examples: examples per epoch; an epoch drops what does not fill its last batch.

    Raises:
      SettingError: if it cannot be read, is not above zero, or too long to count.

    >>> to_steps("duration", "2 epochs", batch_size=128, examples=50_000)
    780
    """
    match = _duration(duration)
    unit = match.group(2) if match else ""
    unit = unit if unit.endswith("s") else unit + "s"
    if not match or unit not in UNITS:
        remedy = f"must be a number and one of {', '.join(UNITS)}, such as '10 epochs'"
        raise SettingError(field, duration, remedy)
    try:
        number = float(match.group(1))
    except ValueError:
        number = 0.0
    require_number(field, number, above=0)
    per_unit = {"steps": 1.0, "epochs": examples // batch_size, "examples": 1 / batch_size}[unit]
    steps = number * per_unit
    if steps > _MOST_STEPS:
        raise SettingError(field, duration, f"must be at most {_MOST_STEPS} steps")
    return max(1, round(steps))


def _duration(text: str) -> re.Match | None:
    return re.fullmatch(r"\s*([0-9.eE+]+)\s*([a-z]+)\s*", str(text))
