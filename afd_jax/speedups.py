"""What makes programs quicker on some platform, and what stands in its place elsewhere.

Only this file knows `afd_jax.cpu`. Without that folder everything here is the plain form: the same
numbers, slower on CPUs. JAX is imported where it is needed: `use_huge_pages` comes before it.
"""

import contextlib
from typing import TYPE_CHECKING, Any

try:
    from afd_jax import cpu
except ImportError:
    HAS_CPU = False
else:
    HAS_CPU = bool(cpu.__file__)  # what is left of a deleted folder has none

if TYPE_CHECKING:
    import jax

Options = dict[str, bool | int | str]


def forms(platform: str) -> contextlib.AbstractContextManager[None]:
    """A context: what is traced inside it takes the forms that are quick on that platform.

    Outside of it, and in it for every platform but "cpu", the forms are those of JAX, so that a
    program for another platform has nothing in it that is there for CPUs. Compiled programs of one
    function are kept apart.
    """
    if not HAS_CPU:
        return contextlib.nullcontext()
    from afd_jax.cpu import forms as cpu_forms

    return cpu_forms.forms(platform)


def conv_general_dilated(*args: Any, **kwargs: Any) -> "jax.Array":
    """`jax.lax.conv_general_dilated`, in the form that fits; for `flax.linen.Conv`."""
    if _for_cpu():
        from afd_jax.cpu import convolution

        return convolution.conv_general_dilated(*args, **kwargs)
    from jax import lax

    return lax.conv_general_dilated(*args, **kwargs)


def relu(x: "jax.Array") -> "jax.Array":
    """`jax.nn.relu`, in the form that fits."""
    if _for_cpu():
        from afd_jax.cpu import relu as cpu_relu

        return cpu_relu.relu(x)
    import jax

    return jax.nn.relu(x)


def compiler_options(platform: str) -> Options | None:
    """For `jax.jit(compiler_options=...)` of a program that runs many times; None: the defaults."""
    if not HAS_CPU:
        return None
    from afd_jax.cpu import compiler

    return compiler.training_options(platform)


def once_options(platform: str) -> Options | None:
    """Likewise, for a program that runs once."""
    if not HAS_CPU:
        return None
    from afd_jax.cpu import compiler

    return compiler.once_options(platform)


def seeds_take_turns(platform: str) -> bool:
    """Whether several seeds run in a loop rather than under `jax.vmap`.

    Mapped over, a convolution has a kernel for each seed, which takes CPUs 2.4 times as long.
    """
    return HAS_CPU and platform == "cpu"


def use_huge_pages() -> None:
    """Starts this program again with memory in large pages, where that helps; first of all."""
    if HAS_CPU:
        from afd_jax.cpu import huge_pages

        huge_pages.use_huge_pages()


def _for_cpu() -> bool:
    if not HAS_CPU:
        return False
    from afd_jax.cpu import forms as cpu_forms

    return cpu_forms.are_wanted()
