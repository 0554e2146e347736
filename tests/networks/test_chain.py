"""Equal blocks in a loop are the blocks written out."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afd_jax.networks import chain, create
from afd_jax.networks.functional import draw, functional


def stacked(tree, blocks):
    """What a network keeps for a chain written out, as it keeps it for the chain in a loop."""
    new = {name: own for name, own in tree.items() if not re.search(r"_block[2-9]$", name)}
    for stage in (1, 2, 3):
        own = [tree[f"stage{stage}_block{n}"] for n in range(2, blocks + 1)]
        new[f"stage{stage}_block2_and_on"] = jax.tree.map(lambda *each: jnp.stack(each), *own)
    return new


@pytest.mark.parametrize("train", [True, False])
def test_a_chain_in_a_loop_is_the_chain_written_out(monkeypatch, train):
    network = create("resnet20", 10)
    images = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))

    def loss(variables):
        outputs, updated = network.apply(variables, images, train=train, mutable=["batch_stats"])
        return jnp.sum(jnp.square(outputs.logits)), updated.get("batch_stats", {})

    def run(scan_from, variables):
        monkeypatch.setattr(chain, "SCAN_FROM", scan_from)
        compute = jax.value_and_grad(loss, has_aux=True)
        loops = str(jax.make_jaxpr(compute)(variables)).count("scan[")
        (value, statistics), gradient = jax.jit(compute)(variables)
        return loops, value, statistics, gradient["params"]

    variables = draw(functional(network), (8, 8, 3), 0, jax.random.key(1))
    none, value, *plain = run(99, variables)
    plain = [stacked(tree, 3) for tree in plain]
    loops, ours, *trees = run(2, {name: stacked(own, 3) for name, own in variables.items()})
    assert loops == 6 and none == 0  # there and back through three stages
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    close(ours, value)
    assert jax.tree.structure(trees) == jax.tree.structure(plain)
    jax.tree.map(close, trees, plain)


def test_a_loop_can_be_written_out_with_the_variables_of_a_loop():
    network = create("resnet56", 10)
    images = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    variables = draw(functional(network), (8, 8, 3), 0, jax.random.key(1))

    def logits(variables):  # a new function each time, which JAX has not traced before
        return network.apply(variables, images, train=False).logits

    loops = str(jax.make_jaxpr(logits)(variables))
    wanted = jax.jit(logits)(variables)
    with chain.written_out():
        written = str(jax.make_jaxpr(lambda variables: logits(variables))(variables))
        found = jax.jit(lambda variables: logits(variables))(variables)
    assert "scan[" in loops and "scan[" not in written
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_each_block_of_a_loop_starts_as_one_written_out():
    @jax.jit
    def kernels(key):
        variables = draw(functional(create("resnet56", 10)), (4, 4, 3), 0, key)
        return variables["params"]["stage2_block2_and_on"]["conv1"]["kernel"]

    drawn = kernels(jax.random.key(0))
    assert drawn.shape == (8, 3, 3, 32, 32)
    np.testing.assert_allclose(np.std(drawn, axis=(1, 2, 3, 4)), (2 / (9 * 32)) ** 0.5, rtol=0.05)
    assert np.all(np.std(drawn, axis=0) > 0)
