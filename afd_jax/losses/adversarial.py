"""Losses of a discriminator and of the network that tries to fool it.

Every pair takes the discriminator's `scores`, one or more per example ([batch] or [batch, ...]; the
loss averages over all axes but the first). What a score means differs: least squares and
Wasserstein use it as it is (AFD's discriminator ends in a sigmoid, so in [0, 1]); BCE and hinge
take an unbounded score, for BCE the logit of "real".

The discriminator should see its input maps as constants; the network should see the
discriminator's parameters as constants. Which one is differentiated is the caller's choice of
`jax.grad` arguments; nothing is stopped in here.
"""

import jax
import jax.numpy as jnp

from afd_jax.losses import checks, reduce


def _scores(where: jax.typing.ArrayLike | None, *scores: jax.typing.ArrayLike) -> list[jax.Array]:
    floats = checks.as_floats(*scores)
    for score in floats:
        checks.require_rank("scores", score, 1)
    if len({score.shape[0] for score in floats}) > 1:
        shapes = " and ".join(str(score.shape) for score in floats)
        raise ValueError(f"real and fake scores must have one batch size, got {shapes}")
    return list(checks.keep(where, *floats))


def _total(where: jax.typing.ArrayLike | None, *terms: jax.Array) -> jax.Array:
    means = jnp.stack([reduce.per_example_mean(term) for term in terms])
    return reduce.drop(where, jnp.sum(means, axis=0))


def least_squares_discriminator(
    real_scores: jax.typing.ArrayLike,
    fake_scores: jax.typing.ArrayLike,
    *,
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    r"""Least-squares discriminator loss $(1 - D(real))^2 + D(fake)^2$, without a factor 1/2.

    Chung et al., AFD, ICML 2020, equation of the discriminator loss (after Mao et al., "Least
    Squares Generative Adversarial Networks", 2017).

    Args:
      real_scores: [batch, ...], D of the source network's map.
      fake_scores: [batch, ...], D of the network's own map.
      where: [batch] bool; False gives the example loss 0 and gradient 0.

    Returns:
      [batch], at least 0; 0 for a perfect discriminator, 0.5 for one that always says 1/2.

    Raises:
      ValueError: if batch sizes differ. TypeError: if scores are not floating point.

    >>> import jax.numpy as jnp
    >>> print(least_squares_discriminator(jnp.array([1.0, 0.5]), jnp.array([0.0, 0.5])))
    [0.  0.5]
    """
    real, fake = _scores(where, real_scores, fake_scores)
    return _total(where, jnp.square(1 - real), jnp.square(fake))


def least_squares_generator(
    fake_scores: jax.typing.ArrayLike, *, where: jax.typing.ArrayLike | None = None
) -> jax.Array:
    r"""Least-squares generator loss $(1 - D(fake))^2$ of AFD: make the network's map look real.

    Chung et al., ICML 2020, equation of the generator loss. Arguments, return value and errors as
    in `least_squares_discriminator`.

    >>> import jax.numpy as jnp
    >>> print(least_squares_generator(jnp.array([0.0, 0.5, 1.0])))
    [1.   0.25 0.  ]
    """
    (fake,) = _scores(where, fake_scores)
    return _total(where, jnp.square(1 - fake))


def bce_discriminator(
    real_scores: jax.typing.ArrayLike,
    fake_scores: jax.typing.ArrayLike,
    *,
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    r"""Cross-entropy discriminator loss $-\log\sigma(s_{real}) - \log(1 - \sigma(s_{fake}))$.

    Goodfellow et al., "Generative Adversarial Nets", 2014. Scores are logits of "real".
    Arguments, return value (in nats) and errors as in `least_squares_discriminator`.

    >>> import jax.numpy as jnp
    >>> print(bce_discriminator(jnp.array([0.0]), jnp.array([0.0])).round(4))
    [1.3863]
    """
    real, fake = _scores(where, real_scores, fake_scores)
    return _total(where, jax.nn.softplus(-real), jax.nn.softplus(fake))


def bce_generator(
    fake_scores: jax.typing.ArrayLike, *, where: jax.typing.ArrayLike | None = None
) -> jax.Array:
    r"""Non-saturating generator loss $-\log\sigma(s_{fake})$ on logits of "real".

    Goodfellow et al., 2014. Arguments and errors as in `least_squares_discriminator`.

    >>> import jax.numpy as jnp
    >>> print(bce_generator(jnp.array([0.0])).round(4))
    [0.6931]
    """
    (fake,) = _scores(where, fake_scores)
    return _total(where, jax.nn.softplus(-fake))


def hinge_discriminator(
    real_scores: jax.typing.ArrayLike,
    fake_scores: jax.typing.ArrayLike,
    *,
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    r"""Hinge discriminator loss $\max(0, 1 - s_{real}) + \max(0, 1 + s_{fake})$.

    Lim and Ye, "Geometric GAN", 2017. Arguments and errors as in `least_squares_discriminator`.

    >>> import jax.numpy as jnp
    >>> print(hinge_discriminator(jnp.array([2.0, 0.0]), jnp.array([-2.0, 0.0])))
    [0. 2.]
    """
    real, fake = _scores(where, real_scores, fake_scores)
    return _total(where, jax.nn.relu(1 - real), jax.nn.relu(1 + fake))


def hinge_generator(
    fake_scores: jax.typing.ArrayLike, *, where: jax.typing.ArrayLike | None = None
) -> jax.Array:
    r"""Generator loss of the hinge pair, $-s_{fake}$ (Lim and Ye, 2017).

    Arguments and errors as in `least_squares_discriminator`.

    >>> import jax.numpy as jnp
    >>> print(hinge_generator(jnp.array([3.0])))
    [-3.]
    """
    (fake,) = _scores(where, fake_scores)
    return _total(where, -fake)


def wasserstein_discriminator(
    real_scores: jax.typing.ArrayLike,
    fake_scores: jax.typing.ArrayLike,
    *,
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    r"""Critic loss $s_{fake} - s_{real}$ (Arjovsky et al., "Wasserstein GAN", 2017).

    Meaningful only for a Lipschitz critic: bound its weights or add a gradient penalty yourself.
    Arguments and errors as in `least_squares_discriminator`.

    >>> import jax.numpy as jnp
    >>> print(wasserstein_discriminator(jnp.array([2.0]), jnp.array([-1.0])))
    [-3.]
    """
    real, fake = _scores(where, real_scores, fake_scores)
    return _total(where, -real, fake)


def wasserstein_generator(
    fake_scores: jax.typing.ArrayLike, *, where: jax.typing.ArrayLike | None = None
) -> jax.Array:
    r"""Generator loss of the Wasserstein pair, $-s_{fake}$ (Arjovsky et al., 2017).

    Arguments and errors as in `least_squares_discriminator`.

    >>> import jax.numpy as jnp
    >>> print(wasserstein_generator(jnp.array([2.0])))
    [-2.]
    """
    (fake,) = _scores(where, fake_scores)
    return _total(where, -fake)
