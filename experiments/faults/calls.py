"""Every public loss on generated arrays: right ones give right numbers, wrong ones an error."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from afd_jax import losses
from experiments.faults.fuzz import refusal

_FLOATS = (np.float32, np.float16, jnp.bfloat16)
_OTHERS = (np.int32, np.bool_)
_SINGLE = [0.0, 1.0, -1.0, 1e-30, 0.5, 3.0, 200.0, -1e4, 1e4]
_NUMBERS = [
    *(0.5, 1.0, 3, 0, -1.0, float("nan"), float("inf"), True, "2", None, 1e-3),
    *(np.float64(2.0), np.float32(-1), np.int64(2), np.array(0.1), np.array([1.0, 2.0])),
    *(jnp.float32(4.0), jnp.zeros(()), jnp.ones(3)),
]
_WHOLE_BATCH = {"linear_cka", "linear_hsic"}
_APART = {"mean", "cka_ratio", "ramp_up_weight", "label_distribution"}


@st.composite
def _array(draw: Any, shapes: Any) -> Any:
    shape = draw(shapes)
    kind = draw(st.sampled_from([*_FLOATS] * 4 + [*_OTHERS]))
    values = np.random.default_rng(draw(st.integers(0, 2**16))).normal(size=shape)
    if values.size and draw(st.booleans()):
        values.flat[draw(st.integers(0, values.size - 1))] = draw(st.sampled_from(_SINGLE))
    return jnp.asarray(values, kind)


@st.composite
def calls(draw: Any) -> tuple[str, dict[str, Any]]:
    """A loss and its arguments; most of them fit each other."""
    name = draw(st.sampled_from([*losses.__all__]))
    parameters = inspect.signature(getattr(losses, name)).parameters
    size = draw(st.integers(0, 5))
    usual = (size, *draw(st.lists(st.integers(1, 3), max_size=3)))
    if "logits" in parameters or "labels" in parameters:
        usual = (size, draw(st.integers(1, 5)))
    shapes = st.sampled_from([usual] * 8 + [usual[:-1], (*usual, 2), (size + 1, *usual[1:])])
    given: dict[str, Any] = {}
    for field in parameters.values():
        if field.name == "labels":
            hard = st.lists(st.integers(-1, usual[-1]), min_size=size, max_size=size)
            right = st.lists(st.integers(0, usual[-1] - 1), min_size=size, max_size=size)
            labels = draw(st.one_of(right, right, right, hard))
            wide = draw(st.sampled_from([np.int32, np.int64]))
            given["labels"] = np.array(labels, wide)
            if draw(st.integers(0, 9)) == 0 and size:
                given["labels"] = given["labels"].astype(np.int64) + 2**32
        elif field.name == "classes":
            given["classes"] = draw(st.integers(0, 5))
        elif field.name == "rows":
            given["rows"] = np.arange(size, dtype=np.int32)[::-1] if draw(st.booleans()) else None
        elif field.name == "where":
            if draw(st.booleans()):
                mask = np.arange(size) % draw(st.integers(1, 3)) == 0
                given["where"] = draw(st.sampled_from([mask] * 6 + [mask * 1.0, mask[:-1]]))
        elif field.name in ("stop_target_gradient", "scale_by_t_squared"):
            given[field.name] = draw(st.booleans())
        elif field.name in ("temperature", "label_smoothing", "correct", "length"):
            given[field.name] = draw(st.sampled_from(_NUMBERS))
        else:
            given[field.name] = draw(_array(shapes))
    return name, given


def judge(case: tuple[str, dict[str, Any]]) -> str:
    """Calls the loss, and differentiates it by its first array."""
    name, given = case
    function = getattr(losses, name)
    try:
        values = np.asarray(function(**given))
    except Exception as error:
        return refusal(error, (ValueError, TypeError), case)
    wrong = _wrong(name, given)
    if wrong:
        return f"accepted with {wrong}: {str(case)[:300]}"
    arrays = {k: v for k, v in given.items() if _is_float(v) and np.ndim(v)}
    if name in _APART:
        return "accepted" if np.all(np.isfinite(values)) else f"not finite: {str(case)[:300]}"
    size = len(next(iter(arrays.values())))
    if name not in _WHOLE_BATCH and values.shape != (size,):
        return f"{values.shape} values: {str(case)[:300]}"
    if not np.all(np.isfinite(values)):
        return f"not finite: {str(case)[:300]}"
    masked = ~np.asarray(given.get("where", np.ones(size, bool)))
    masked = masked if given.get("rows") is None else masked[given["rows"]]
    if name not in _WHOLE_BATCH and np.any(values[masked]):
        return f"a masked example counts: {str(case)[:300]}"
    for field in [*arrays][:1]:

        def total(x: jax.Array, field: str = field) -> jax.Array:
            return jnp.sum(function(**{**given, field: x}))

        gradient = jax.grad(total)(arrays[field])
        if not np.all(np.isfinite(np.asarray(gradient, np.float32))):
            return f"gradient of {field} not finite: {str(case)[:300]}"
    return "accepted"


def _is_float(value: Any) -> bool:
    return isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jnp.floating)


def _wrong(name: str, given: dict[str, Any]) -> str | None:
    """What should have been refused, by rules written apart from the losses'."""
    bounds = {
        "temperature": (0, np.inf, False, True),
        "length": (0, np.inf, False, True),
        "label_smoothing": (0, 1, True, False),
        "correct": (0, 1, True, True),
    }
    for field, (low, high, low_too, high_too) in bounds.items():
        if field not in given:
            continue
        value = given[field]
        if isinstance(value, bool | str) or value is None:
            return f"{field} of {type(value).__name__}"
        flat = np.ravel(np.asarray(value, np.float64))
        if not np.all(np.isfinite(flat)):
            return f"{field} not finite"
        if np.any(flat < low) or np.any(flat > high):
            return f"{field} out of range"
        if (not low_too and np.any(flat == low)) or (not high_too and np.any(flat == high)):
            return f"{field} on its bound"
        if len(np.shape(value)) > (field == "temperature"):
            return f"{field} of shape {np.shape(value)}"
    arrays = [v for v in given.values() if isinstance(v, jax.Array) and v.ndim]
    if "labels" in given and "others" not in given:  # which only asks whether two are the same
        classes = given.get("classes") or arrays[0].shape[-1]
        if np.any(given["labels"] < 0) or np.any(given["labels"] >= classes):
            return "a label out of range"
    where = given.get("where")
    if where is not None and where.dtype != bool:
        return "where of another type"
    if name != "ramp_up_weight" and any(0 in v.shape for v in arrays):
        return "an empty batch"
    return None
