"""Networks traced as they are written, without what only makes them quicker."""

import contextlib

import jax

_wanted = jax.make_user_context(default_value=False)  # compiled programs keep it apart


def as_written() -> contextlib.AbstractContextManager[None]:
    """Traces without loops over blocks and without convolutions in another form.

    For counting: the compiler counts the operations in a loop but once, and counts those that are
    there for speed, too.
    """
    return _wanted(True)


def is_as_written() -> bool:
    """Whether `as_written` holds."""
    return bool(_wanted.value)
