"""Where the forms in this folder take the place of the plain ones."""

import contextlib

import jax

_wanted = jax.make_user_context(default_value=False)  # compiled programs keep it apart


def forms(platform: str) -> contextlib.AbstractContextManager[None]:
    """While tracing inside it, the forms for CPUs are used if that is the platform."""
    return _wanted(platform == "cpu")


def are_wanted() -> bool:
    """Whether `forms("cpu")` holds."""
    return bool(_wanted.value)
