"""Floating-point operations of a function, counted from its traced program."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax

from afd_jax import speedups


def count_flops(function: Callable[..., Any], *args: Any) -> float:
    """Operations of convolutions and products of matrices; a multiply-add is two.

    Products with padding do not count. The body of a scan counts for each of its rounds, that of a
    `while_loop` once, for nobody knows how often it runs; of the branches of a condition the one
    with most operations counts. Operations element by element do not, a few percent of a network's.

    Args:
      function: of arrays; it is traced in JAX's own forms, not in those for a platform.
      *args: arrays or `jax.ShapeDtypeStruct`.

    >>> import jax.numpy as jnp
    >>> count_flops(jnp.matmul, jnp.zeros((2, 3)), jnp.zeros((3, 5)))
    60.0
    """
    return flops_and_shapes(function, *args)[0]


def flops_and_shapes(function: Callable[..., Any], *args: Any) -> tuple[float, Any]:
    """The same, and the shapes of what the function returns, from one trace."""
    with speedups.forms("any"):
        program, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
    return _count(program), shapes


def _count(program: Any) -> float:
    return sum((_operation(equation) for equation in program.eqns), 0.0)


def _operation(equation: Any) -> float:
    name = equation.primitive.name
    if name == "conv_general_dilated":
        return 2.0 * _convolution(equation)
    if name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        sizes = equation.invars[0].aval.shape
        return 2.0 * equation.outvars[0].aval.size * math.prod(sizes[d] for d in contracted)
    inner = [_count(program) for program in _programs(equation.params.values())]
    if name == "cond":
        return max(inner)
    return equation.params.get("length", 1) * sum(inner) if name == "scan" else sum(inner)


def _programs(values: Any) -> list[Any]:
    """The programs among an operation's parameters, whatever these are called."""
    found: list[Any] = []
    for value in values:
        if hasattr(value, "eqns"):
            found.append(value)
        elif isinstance(value, tuple | list):
            found += _programs(value)
    return found


def _convolution(equation: Any) -> int:
    """Products of an input with a weight."""
    own = equation.params
    numbers = own["dimension_numbers"]
    inputs, kernel = (variable.aval.shape for variable in equation.invars)
    outputs = equation.outvars[0].aval.shape
    batch, features = (outputs[d] for d in numbers.out_spec[:2])
    positions = math.prod(
        _positions(inputs[i], kernel[k], outputs[o], stride, low, spread, dilation)
        for i, k, o, stride, (low, _), spread, dilation in zip(
            numbers.lhs_spec[2:],
            numbers.rhs_spec[2:],
            numbers.out_spec[2:],
            own["window_strides"],
            own["padding"],
            own["lhs_dilation"],
            own["rhs_dilation"],
            strict=True,
        )
    )
    return batch * features * kernel[numbers.rhs_spec[1]] * positions


def _positions(
    size: int, kernel: int, outputs: int, stride: int, low: int, spread: int, dilation: int
) -> int:
    """How many pairs (output, weight) of one dimension meet an input, not padding or a gap."""
    places: Sequence[int] = [
        output * stride + weight * dilation - low
        for output in range(outputs)
        for weight in range(kernel)
    ]
    return sum(0 <= place < size * spread and place % spread == 0 for place in places)
