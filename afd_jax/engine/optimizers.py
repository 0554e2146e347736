"""Optimizers and learning-rate schedules as the papers used them.

`torch.optim` adds weight decay to the gradient, before momentum or moments; optax's `adamw`
subtracts it afterwards. At AFD's weight decay of 1e-1 the two are far apart, so the place of the
decay is an argument.

Every optimizer takes `clip`: where the norm of the gradient is larger, the gradient is scaled down
to it. The norm is over all that an update moves of one network. Every schedule takes `warmup`: the
fraction of the run in which the rate rises from 0.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from afd_jax.errors import SettingError, one_of, require_flag, require_list, require_number

DECAY_PLACES = ("gradient", "decoupled")


def sgd(
    learning_rate: optax.ScalarOrSchedule,
    *,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    decay: str = "gradient",
    clip: float | None = None,
) -> optax.GradientTransformation:
    """Stochastic gradient descent, equal to `torch.optim.SGD` with dampening 0.

    Args:
      learning_rate: a number, or a function of the step.
      momentum: factor of the running sum of gradients; 0 for none.
      nesterov: look ahead by one step.
      weight_decay: pulls every parameter towards 0, biases and BatchNorm's included.
      decay: "gradient" adds it to the gradient; "decoupled" subtracts
        learning_rate * weight_decay * parameter beside the step.
      clip: largest norm of the gradient, before the decay is added; None for no bound.
    """
    require_number("momentum", momentum, least=0)
    require_flag("nesterov", nesterov)
    if nesterov and not momentum:
        raise SettingError("nesterov", nesterov, "needs a momentum above 0")
    core = optax.trace(momentum, nesterov) if momentum else optax.identity()
    return _with_decay(core, learning_rate, weight_decay, decay, clip)


def adam(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decay: str = "gradient",
    clip: float | None = None,
) -> optax.GradientTransformation:
    """Adam, equal to `torch.optim.Adam`, or to `torch.optim.AdamW` with decay="decoupled".

    Args:
      learning_rate: a number, or a function of the step.
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the root of the second moment.
      weight_decay: pulls every parameter towards 0.
      decay: "gradient" or "decoupled", as in `sgd`.
      clip: largest norm of the gradient, as in `sgd`.
    """
    return _with_decay(_moments(b1, b2, eps), learning_rate, weight_decay, decay, clip)


def adamw(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    clip: float | None = None,
) -> optax.GradientTransformation:
    """Adam with decoupled weight decay, equal to `torch.optim.AdamW`; arguments as in `adam`."""
    return _with_decay(_moments(b1, b2, eps), learning_rate, weight_decay, "decoupled", clip)


def lamb(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-6,
    weight_decay: float = 0.0,
    clip: float | None = None,
) -> optax.GradientTransformation:
    """Adam for large batches: each layer's step has a length in proportion to its parameters'.

    You et al., "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes", 2020;
    `optax.lamb`. Equal blocks that run in a loop (`networks.chain`) count as one layer.

    Args:
      learning_rate: a number, or a function of the step.
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the root of the second moment.
      weight_decay: of every parameter, added to the step before its length is set.
      clip: largest norm of the gradient, as in `sgd`.
    """
    _require(learning_rate, weight_decay)
    _require_moments(b1, b2, eps)
    return _clipped(optax.lamb(learning_rate, b1, b2, eps, weight_decay=weight_decay), clip)


def lars(
    learning_rate: optax.ScalarOrSchedule,
    *,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    trust: float = 0.001,
    clip: float | None = None,
) -> optax.GradientTransformation:
    """SGD for large batches: each layer's step has a length in proportion to its parameters'.

    You, Gitman, Ginsburg, "Large Batch Training of Convolutional Networks", 2017; `optax.lars`.
    Biases and BatchNorm's parameters are stepped as by SGD, without decay, as is usual. Equal
    blocks that run in a loop (`networks.chain`) count as one layer.

    Args:
      learning_rate: a number, or a function of the step.
      momentum: factor of the running sum of steps.
      nesterov: look ahead by one step.
      weight_decay: of kernels, added to the gradient before its length is set.
      trust: length of a layer's step at rate 1, as a fraction of its parameters' norm.
      clip: largest norm of the gradient, as in `sgd`.
    """
    _require(learning_rate, weight_decay)
    require_number("momentum", momentum, least=0)
    require_flag("nesterov", nesterov)
    require_number("trust", trust, above=0)

    def kernels(params: Any) -> Any:
        def is_kernel(path: Any, x: Any) -> bool:
            # Equal blocks in a loop stack their BatchNorm parameters, so they are told by name.
            names = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
            return x.ndim > 1 and not {"scale", "bias"} & {*names}

        return jax.tree_util.tree_map_with_path(is_kernel, params)

    core = optax.lars(
        learning_rate,
        weight_decay=weight_decay,
        weight_decay_mask=kernels,
        trust_coefficient=trust,
        trust_ratio_mask=kernels,
        momentum=momentum,
        nesterov=nesterov,
    )
    return _clipped(core, clip)


def _moments(b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    _require_moments(b1, b2, eps)
    return optax.scale_by_adam(b1, b2, eps)


def _require_moments(b1: float, b2: float, eps: float) -> None:
    require_number("b1", b1, least=0, below=1)
    require_number("b2", b2, least=0, below=1)
    require_number("eps", eps, least=0)


def _with_decay(
    core: optax.GradientTransformation,
    learning_rate: optax.ScalarOrSchedule,
    weight_decay: float,
    decay: str,
    clip: float | None,
) -> optax.GradientTransformation:
    _require(learning_rate, weight_decay)
    if decay not in DECAY_PLACES:
        raise SettingError("decay", decay, one_of(decay, DECAY_PLACES))
    parts = [core]
    if weight_decay:
        parts.insert(0 if decay == "gradient" else 1, optax.add_decayed_weights(weight_decay))
    return _clipped(optax.chain(*parts, optax.scale_by_learning_rate(learning_rate)), clip)


def _require(learning_rate: optax.ScalarOrSchedule, weight_decay: float) -> None:
    require_number("weight_decay", weight_decay, least=0)
    if not callable(learning_rate):
        require_number("learning_rate", learning_rate, least=0)


def _clipped(
    optimizer: optax.GradientTransformation, clip: float | None
) -> optax.GradientTransformation:
    if clip is None:
        return optimizer
    require_number("clip", clip, above=0)
    return optax.chain(optax.clip_by_global_norm(clip), optimizer)


OPTIMIZERS = {"sgd": sgd, "adam": adam, "adamw": adamw, "lamb": lamb, "lars": lars}


def afd() -> dict[str, optax.GradientTransformation]:
    """AFD's optimizers at the beginning of their schedules, by update (assumed)."""
    slow = adam(2e-5, weight_decay=0.1)
    fast = sgd(0.1, momentum=0.9, weight_decay=1e-4)
    return {"logit": fast, "feature": slow, "discriminator": slow}


def constant(learning_rate: float, total_steps: int, *, warmup: float = 0.0) -> optax.Schedule:
    """The same rate throughout, after a linear rise over the fraction `warmup` of the run."""
    return _warmed_up(optax.constant_schedule(learning_rate), learning_rate, total_steps, warmup)


def step_decay(
    learning_rate: float,
    total_steps: int,
    *,
    at: Sequence[float] = (0.5, 0.75),
    factor: float = 0.1,
    warmup: float = 0.0,
) -> optax.Schedule:
    """Multiplies the rate by `factor` at each of the given fractions of the run.

    Before it, the rate rises linearly over the fraction `warmup` of the run.

    >>> schedule = step_decay(0.1, 300, at=(0.5, 0.75))
    >>> [round(float(schedule(step)), 4) for step in (149, 150, 225)]
    [0.1, 0.01, 0.001]
    """
    require_list("at", at)
    for fraction in at:
        require_number("at", fraction, above=0, most=1)
    require_number("factor", factor, least=0)
    if len(set(at)) < len(at):
        raise SettingError("at", at, "must be different fractions of the run")
    boundaries: dict[int, float] = {}
    for fraction in at:  # in a run of few steps, two may fall on one
        step = max(1, round(fraction * total_steps))
        boundaries[step] = factor * boundaries.get(step, 1.0)
    steps = optax.piecewise_constant_schedule(learning_rate, boundaries)
    return _warmed_up(steps, learning_rate, total_steps, warmup)


def _warmed_up(
    schedule: optax.Schedule, learning_rate: float, total_steps: int, warmup: float
) -> optax.Schedule:
    """The schedule, but rising linearly from 0 at first."""
    if not (steps := _rising(warmup, total_steps)):
        return schedule
    rise = optax.linear_schedule(0.0, learning_rate, steps)
    return lambda step: jnp.where(step < steps, rise(step), schedule(step))


def cosine(learning_rate: float, total_steps: int, *, warmup: float = 0.0) -> optax.Schedule:
    """Half a cosine down to 0, after a linear rise over the fraction `warmup` of the run."""
    if not (steps := _rising(warmup, total_steps)):
        return optax.cosine_decay_schedule(learning_rate, total_steps)
    return optax.warmup_cosine_decay_schedule(0.0, learning_rate, steps, total_steps)


def _rising(warmup: float, total_steps: int) -> int:
    """Steps of the warm-up, never all of a short run."""
    require_number("warmup", warmup, least=0, most=0.99)
    return min(round(warmup * total_steps), total_steps - 1)


SCHEDULES = {"constant": constant, "step": step_decay, "cosine": cosine}
