"""Grad-CAM: where in an image a network sees the class that it predicts."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from afd_jax.networks.layers import single
from afd_jax.networks.outputs import Outputs


class NoPathError(ValueError):
    """No way from a network's feature map to its logits can be seen."""


class Sight(NamedTuple):
    """What a network sees.

    Attributes:
      heat: [batch, height, width], in [0, 1] with the most of each image at 1; all 0 where nothing
        speaks for the class.
      predicted: [batch] int32, the class of the largest logit.
      confidence: [batch], its probability.
    """

    heat: jax.Array
    predicted: jax.Array
    confidence: jax.Array


def grad_cam(network: Callable[[jax.Array], Outputs], images: jax.Array) -> Sight:
    """Class activation by gradients (Selvaraju et al., ICCV 2017), for the predicted class y.

        weights[k] = mean over places of d logit[y] / d features[place, k]
        heat[place] = max(0, sum over k of weights[k] features[place, k])

    Args:
      network: normalised images to `Outputs`, as in evaluation: no image depends on another.
      images: [batch, height, width, channels], normalised.

    Returns:
      Heat of the size of the images, bilinear between the places of the map.

    Raises:
      NoPathError: if the logits are not computed from `features` in the outermost function: a
        network that is one call of `jax.jit`, say, or a sum of several networks.
    """
    outputs, head = _cut(network, images)
    predicted = jnp.argmax(outputs.logits, axis=-1)

    def chosen(features: jax.Array) -> jax.Array:
        return jnp.take_along_axis(head(features), predicted[:, None], axis=-1).sum()

    weights = single(jax.grad(chosen)(outputs.features)).mean(axis=(1, 2))
    heat = jax.nn.relu(jnp.einsum("bhwc,bc->bhw", single(outputs.features), weights))
    heat = jax.image.resize(heat, images.shape[:3], "bilinear")
    most = heat.max(axis=(1, 2), keepdims=True)
    heat = jnp.where(most > 0, heat / jnp.where(most > 0, most, 1), 0)
    confidence = jax.nn.softmax(single(outputs.logits)).max(axis=-1)
    return Sight(heat, predicted.astype(jnp.int32), confidence)


def _cut(
    network: Callable[[jax.Array], Outputs], images: jax.Array
) -> tuple[Outputs, Callable[[jax.Array], jax.Array]]:
    """A network's outputs, and the rest of it, which makes logits of features.

    No network has to name its classifier: the rest is whatever in its trace follows the features.
    """

    def run(images: jax.Array) -> tuple[jax.Array, jax.Array]:
        outputs = network(images)
        return outputs.logits, outputs.features

    traced = jax.make_jaxpr(run)(images)
    jaxpr = traced.jaxpr
    logits, features = jaxpr.outvars
    ends = [n + 1 for n, equation in enumerate(jaxpr.eqns) if features in equation.outvars]
    end = ends[0] if ends else 0
    # By identity: the numbers among them cannot be hashed.
    read = {id(v) for equation in jaxpr.eqns[end:] for v in equation.invars}
    made = [*jaxpr.invars, *(v for equation in jaxpr.eqns[:end] for v in equation.outvars)]
    if id(features) not in read or logits in made:
        raise NoPathError("its logits are not computed from its feature map where one can see it")
    others = [v for v in made if id(v) in read and v is not features]
    lower = jaxpr.replace(eqns=jaxpr.eqns[:end], outvars=[features, *others])
    upper = jaxpr.replace(eqns=jaxpr.eqns[end:], invars=[features, *others], outvars=[logits])
    value, *rest = jaxpr_as_fun(ClosedJaxpr(lower, traced.consts))(images)

    def head(features: jax.Array) -> jax.Array:
        return jaxpr_as_fun(ClosedJaxpr(upper, traced.consts))(features, *rest)[0]

    return Outputs(head(value), value), head
