"""What the compiler is told on each kind of device, where a default costs more than it brings."""

import functools

import jax
import jax.numpy as jnp

Options = dict[str, bool | int | str]


@functools.cache
def training_options(platform: str) -> Options | None:
    """Options for a program that runs many times, for `jax.jit(compiler_options=...)`.

    On the CPU convolutions go to Eigen instead of YNNPACK, which takes twice as long for the
    gradients of kernels (experiments/results/speed_cpu.json). None where the defaults are as good,
    or the compiler at hand does not know the option.
    """
    if platform != "cpu":
        return None
    libraries = ("INDIVIDUAL_DOT", "REDUCE")  # what stays with YNNPACK
    names = ",".join(f"LIBRARY_FUSION_TYPE_{name}" for name in libraries)
    options: Options = {"xla_cpu_experimental_ynn_fusion_type": names}
    try:
        jax.jit(jnp.negative, compiler_options=options).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:  # the option is experimental, and may go
        return None
    return options


def once_options(platform: str) -> Options | None:
    """Options for a program that runs once.

    Optimising it takes the CPU compiler seconds and saves milliseconds.
    """
    return {"xla_backend_optimization_level": 0} if platform == "cpu" else None
