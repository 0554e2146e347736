"""What a traced program's outputs depend on: so that an optimizer touches what its loss trains."""

from typing import Any

import jax.extend.core as core


def used_inputs(jaxpr: core.Jaxpr, output: int) -> list[bool]:
    """Which inputs have a path to one output, other than through a stop-gradient.

    Looks into jit, remat and scan. Of what else has a program inside (a while loop, a condition, a
    custom derivative, whose rule need not follow its program) each output counts as depending on
    each input.

    Args:
      jaxpr: as from `jax.make_jaxpr`.
      output: position among the program's outputs.

    Returns:
      One bool for each input of the program.
    """
    wanted = [position == output for position in range(len(jaxpr.outvars))]
    return _backwards(jaxpr, wanted)


def _backwards(jaxpr: core.Jaxpr, wanted: list[bool]) -> list[bool]:
    needed = {var for var, want in zip(jaxpr.outvars, wanted, strict=True) if want and _is_var(var)}
    for equation in reversed(jaxpr.eqns):
        outputs = [var in needed for var in equation.outvars]
        if any(outputs) and equation.primitive.name != "stop_gradient":
            inputs = _through(equation, outputs)
            pairs = zip(equation.invars, inputs, strict=True)
            needed |= {var for var, used in pairs if used and _is_var(var)}
    return [var in needed for var in jaxpr.invars]


def _through(equation: Any, outputs: list[bool]) -> list[bool]:
    """Which inputs of one equation the wanted ones of its outputs depend on."""
    inner = equation.params.get("jaxpr")
    inner = getattr(inner, "jaxpr", inner)  # a closed jaxpr holds an open one
    if not isinstance(inner, core.Jaxpr) or len(inner.invars) != len(equation.invars):
        return [True] * len(equation.invars)
    if equation.primitive.name != "scan":
        return _backwards(inner, outputs)
    # What is carried out of one round goes into the next: go round until nothing is added.
    constants, carried = equation.params["num_consts"], equation.params["num_carry"]
    while True:
        inputs = _backwards(inner, outputs)
        again = inputs[constants : constants + carried]
        merged = [a or b for a, b in zip(again, outputs, strict=False)] + outputs[carried:]
        if merged == outputs:
            return inputs
        outputs = merged


def _is_var(var: Any) -> bool:
    return not isinstance(var, core.Literal)
