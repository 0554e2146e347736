"""Grad-CAM against its closed form in NumPy, and against finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from afd_jax.networks import Outputs, create
from afd_jax.networks.functional import functional
from afd_jax.networks.outputs import as_nodes
from afd_jax.reports.grad_cam import NoPathError, grad_cam
from tests.tiny import InNNX, Tiny, Wrapped


def ready(module, shape=(3, 8, 8, 2)):
    """A network as a function of images alone, its variables, and images."""
    images = jax.random.normal(jax.random.key(1), shape)
    network = functional(module)
    variables = network.init(jax.random.key(0), images)
    return (
        lambda x: as_nodes(network.apply(variables, x, train=False)[0])[0],
        variables,
        images,
    )


def upsampled(maps, size):
    """Bilinear between the middles of pixels, written out: [batch, h, w] to [batch, size, size]."""
    places = (np.arange(size) + 0.5) * maps.shape[1] / size - 0.5
    low = np.clip(np.floor(places).astype(int), 0, maps.shape[1] - 1)
    high = np.clip(np.floor(places).astype(int) + 1, 0, maps.shape[1] - 1)
    part = places - np.floor(places)
    rows = maps[:, low] * (1 - part)[None, :, None] + maps[:, high] * part[None, :, None]
    return rows[:, :, low] * (1 - part) + rows[:, :, high] * part


def test_equals_class_activation_maps_where_one_linear_layer_follows():
    """Then the weights are a row of that layer over the number of places (Zhou et al., 2016)."""
    network, variables, images = ready(Tiny(classes=5))
    features = np.asarray(network(images).features, np.float64)
    kernel = np.asarray(variables["params"]["Dense_0"]["kernel"], np.float64)
    bias = np.asarray(variables["params"]["Dense_0"]["bias"], np.float64)
    logits = features.mean((1, 2)) @ kernel + bias
    predicted = logits.argmax(1)
    maps = np.maximum(np.einsum("bhwc,cb->bhw", features, kernel[:, predicted]), 0)
    expected = upsampled(maps, 8)
    expected /= np.maximum(expected.max((1, 2), keepdims=True), 1e-30)
    seen = jax.jit(lambda x: grad_cam(network, x))(images)
    assert (expected > 0).any()
    np.testing.assert_allclose(seen.heat, expected, atol=1e-5)
    np.testing.assert_array_equal(seen.predicted, predicted)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(seen.confidence, probabilities.max(1), rtol=1e-5)


class Half(Tiny):
    """Computes in half precision throughout."""

    @nn.compact
    def __call__(self, images, *, train):
        features = nn.relu(nn.Conv(4, (3, 3), strides=2, dtype=jnp.bfloat16)(images))
        logits = nn.Dense(self.classes, dtype=jnp.bfloat16)(jnp.mean(features, axis=(1, 2)))
        return Outputs(logits, features)


def test_what_is_seen_in_half_precision_can_be_drawn():
    network, _, images = ready(Half(classes=5))
    assert network(images).logits.dtype == network(images).features.dtype == jnp.bfloat16
    seen = grad_cam(network, images)
    assert seen.heat.dtype == seen.confidence.dtype == np.float32
    np.testing.assert_allclose(seen.heat.max(axis=(1, 2)), 1)


def test_equals_finite_differences_through_a_bent_head(double):
    """The head is not linear, so that weights depend on the features themselves."""
    keys = jax.random.split(jax.random.key(0), 3)
    images = jax.random.normal(keys[0], (2, 4, 4, 3), jnp.float64)
    first, last = (jax.random.normal(k, (3, 3), jnp.float64) for k in keys[1:])

    def head(features):
        return np.tanh((features**2).mean((1, 2)) @ np.asarray(first)) @ np.asarray(last)

    def network(x):
        features = jnp.sin(x)
        return Outputs(jnp.tanh((features**2).mean((1, 2)) @ first) @ last, features)

    features = np.sin(np.asarray(images))
    predicted = head(features).argmax(1)
    gradient = np.zeros_like(features)
    for place in np.ndindex(*features.shape):
        step = np.zeros_like(features)
        step[place] = 1e-5
        change = head(features + step) - head(features - step)
        gradient[place] = change[place[0], predicted[place[0]]] / 2e-5
    weights = gradient.mean((1, 2))
    expected = np.maximum(np.einsum("bhwc,bc->bhw", features, weights), 0)
    expected /= expected.max((1, 2), keepdims=True)
    np.testing.assert_allclose(grad_cam(network, images).heat, expected, atol=1e-8)


@pytest.mark.parametrize("module", [Wrapped(classes=3), create("resnet8", 3)])
def test_takes_networks_as_they_are(module):
    network, _, images = ready(module)
    seen = grad_cam(network, images)
    assert seen.heat.shape == (3, 8, 8) and float(seen.heat.max()) == 1.0
    np.testing.assert_array_equal(seen.predicted, network(images).logits.argmax(-1))


def test_takes_nnx():
    network, _, images = ready(lambda rngs: InNNX(3, rngs=rngs))
    seen = grad_cam(network, images)
    np.testing.assert_array_equal(seen.predicted, network(images).logits.argmax(-1))


def test_nothing_that_speaks_for_the_class_is_dark_all_over():
    def network(x):
        features = jnp.sin(x)
        return Outputs(-features.mean((1, 2)), features)

    seen = grad_cam(network, jnp.ones((1, 2, 2, 3)))
    assert not seen.heat.any() and np.isfinite(seen.heat).all()


def test_says_so_if_the_classifier_cannot_be_seen():
    network, _, images = ready(Tiny(classes=3))
    hidden = jax.jit(lambda x: (network(x).logits, network(x).features))
    with pytest.raises(NoPathError, match="feature map"):
        grad_cam(lambda x: Outputs(*hidden(x)), images)
