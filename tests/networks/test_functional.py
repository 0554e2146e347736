"""Linen and NNX modules behind one protocol."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from afd_jax.errors import SettingError
from afd_jax.networks import create
from afd_jax.networks.functional import NNX, Functional, Linen, draw, functional, run
from tests import tiny
from tests.leaves import names
from tests.networks.modules import InLinen, InNNX, as_linen

SHAPE = (8, 8, 2)
KEY = {"dropout": jax.random.key(7)}
LINEN = functional(InLinen())
MADE = functional(functools.partial(InNNX, classes=5))


def images(count=4):
    return jax.random.normal(jax.random.key(3), (count, *SHAPE))


def drawn(network=MADE, seed=0):
    return draw(network, SHAPE, 0, jax.random.key(seed))


def close(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), ours, theirs)


def test_variables_are_plain_dicts_of_arrays():
    variables = drawn()
    paths = [path for path, _ in jax.tree.leaves_with_path(variables)]
    assert all(type(key) is jax.tree_util.DictKey for path in paths for key in path)
    assert all(isinstance(key.key, str) for path in paths for key in path)
    assert names(variables["batch_stats"]) == {"norm/mean", "norm/var"}
    assert names(as_linen(variables)) == names(drawn(LINEN))  # and no states of random numbers


@pytest.mark.parametrize("train", [False, True])
def test_nnx_gives_what_linen_gives(train):
    variables = drawn()
    variables["batch_stats"] = jax.tree.map(lambda x: x + 0.5, variables["batch_stats"])
    ours, statistics = run(MADE, variables, images(), KEY, train=train)
    theirs, updated = run(LINEN, as_linen(variables), images(), KEY, train=train)
    close(ours.features, theirs.features)
    close(statistics, updated)
    moved = np.any(statistics["batch_stats"]["norm"]["mean"] != 0.5)
    assert moved == train
    if not train:  # Dropout draws other numbers
        close(ours.logits, theirs.logits)


@pytest.mark.parametrize("network", [LINEN, MADE])
def test_dropout_begins_anew_from_each_key(network):
    variables = drawn(network)

    def logits(key, train=True):
        rngs = {} if key is None else {"dropout": jax.random.key(key)}
        outputs, statistics = run(network, variables, images(), rngs, train=train)
        assert [*statistics] == ["batch_stats"]
        return np.asarray(outputs.logits)

    np.testing.assert_array_equal(logits(1), logits(1))
    assert np.any(logits(1) != logits(2))
    np.testing.assert_array_equal(logits(1, train=False), logits(None, train=False))
    with pytest.raises(Exception, match=r"was given no key|PRNG.* for \"dropout\""):
        logits(None)


def test_gradients_are_those_of_linen():
    networks = [functional(functools.partial(InNNX, rate=0.0)), functional(InLinen(rate=0.0))]
    variables = drawn(networks[0])

    def loss(network, variables):
        return jnp.sum(network.apply(variables, images(), train=True, rngs=KEY)[0].logits ** 2)

    ours, theirs = (
        jax.jit(jax.grad(functools.partial(loss, network)))(own)["params"]
        for network, own in zip(networks, (variables, as_linen(variables)), strict=True)
    )
    close(as_linen({"params": ours})["params"], theirs)


def test_equal_networks_are_traced_once():
    twin = functional(functools.partial(InNNX, classes=5))
    assert twin is not MADE and twin == MADE and hash(twin) == hash(MADE)
    assert functional(InLinen()) == LINEN
    assert functional(functools.partial(InNNX, classes=6)) != MADE != MADE.with_axis("data")
    assert functional(InLinen(), "networks[1]") == LINEN and MADE != LINEN

    before = run._cache_size()
    for network in (MADE, twin):
        run(network, drawn(network), images(3), {}, train=False)
    assert run._cache_size() == before + 1


def test_the_draw_depends_on_key_and_start():
    seeds = jax.random.split(jax.random.key(1), 2)
    both = jax.vmap(functools.partial(draw, MADE, SHAPE, 0))(seeds)
    close(jax.tree.map(lambda x: x[1], both), draw(MADE, SHAPE, 0, seeds[1]))
    kernels = [
        draw(network, SHAPE, start, jax.random.key(seed))["params"]["conv"]["kernel"]
        for network in (MADE, LINEN)
        for start, seed in ((0, 0), (1, 0), (0, 1))
    ]
    assert len({float(jnp.sum(kernel)) for kernel in kernels}) == 6
    # As in the first edition, so that a seed still stands for the same parameters.
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 0), 1)
    own = InLinen().init(key, jnp.zeros((2, *SHAPE)), train=False)
    np.testing.assert_allclose(kernels[4], own["params"]["conv"]["kernel"], rtol=1e-6)


def test_a_module_that_is_there_keeps_its_values():
    module = InNNX(rngs=nnx.Rngs(5))
    network = functional(module)
    assert network.module is module and network.name == MADE.name == "InNNX"
    variables = drawn(network, 1)
    close(variables, drawn(network, 2))
    np.testing.assert_array_equal(variables["params"]["conv"]["kernel"], module.conv.kernel[...])
    module.eval()
    ours = run(network, variables, images(), KEY, train=False)[0]
    np.testing.assert_allclose(ours.logits, module(images()).logits, rtol=1e-5, atol=1e-6)
    # Training leaves it alone, and what becomes of it later does not change what was wrapped.
    run(network, variables, images(), KEY, train=True)
    np.testing.assert_array_equal(module.norm.mean[...], 0)
    module.conv.kernel[...] = 0 * module.conv.kernel[...]
    close(network.init(jax.random.key(3), images()), variables)
    again = drawn(functional(module), 3)
    assert not np.any(again["params"]["conv"]["kernel"])


@pytest.mark.parametrize("network", [LINEN, MADE])
def test_batchnorm_is_synchronised(network):
    variables = drawn(network)
    variables["batch_stats"] = jax.tree.map(lambda x: x + 0.5, variables["batch_stats"])

    def statistics(network, images):
        return network.apply(variables, images, train=True, rngs=KEY)[1]

    whole = statistics(network, images())
    halves = images().reshape(2, 2, *SHAPE)
    over = jax.vmap(functools.partial(statistics, network.with_axis("data")), axis_name="data")
    for half in range(2):
        close(jax.tree.map(lambda x, h=half: x[h], over(halves)), whole)
    own = jax.vmap(functools.partial(statistics, network))(halves)["batch_stats"]["norm"]["mean"]
    assert np.any(np.abs(own[0] - own[1]) > 1e-3)


def test_batchnorm_that_cannot_be_synchronised_is_named():
    network = functional(tiny.NoAxis(5), "networks[1]")
    statistics = {"batch_stats": drawn(network)["batch_stats"]}
    network.require_synchronised(statistics)  # nobody asked for it
    with pytest.raises(SettingError, match=r"networks\[1\] = 'NoAxis': has Batch.*'axis_name'"):
        network.with_axis("data").require_synchronised(statistics)
    functional(tiny.Dropout(5)).with_axis("data").require_synchronised({})


def test_what_is_wrapped_already_passes():
    for network in (LINEN, MADE):
        assert functional(network) is network
        assert isinstance(network, Functional)
    assert isinstance(LINEN, Linen) and isinstance(MADE, NNX)
    assert functional(InNNX) == functional(InNNX)
    assert isinstance(functional(lambda rngs: InNNX(rngs=rngs)), NNX)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (InLinen, r"heads = .*is a class; give a module, InLinen\(classes=10\)"),
        (7, "heads = 7: must be a Linen module, an NNX module or what makes one"),
        ("resnet8", "heads = 'resnet8': must be"),
        (lambda x: x, "must be a Linen module"),
        (
            tiny.Stages(5, widths=[3, 4, 5]),
            "heads = 'Stages': has a field that cannot be hashed; give a tuple",
        ),
        (
            functools.partial(InNNX, classes=[5]),
            "heads = 'InNNX': has a field that cannot",
        ),
    ],
)
def test_what_cannot_be_a_network_is_named(module, words):
    with pytest.raises(SettingError, match=words):
        functional(module, "heads")


def test_networks_of_ones_own_by_name():
    assert create("tests.tiny:Tiny", 7) == tiny.Tiny(classes=7)
    made = functional(create("tests.networks.modules:InNNX", 7))
    assert made == functional(functools.partial(InNNX, classes=7))
    assert run(made, drawn(made), images(), {}, train=False)[0].logits.shape == (4, 7)


def test_statistics_stay_as_they_are_in_evaluation():
    class Counting(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            count = self.variable("counts", "calls", jnp.zeros, ())
            if self.is_mutable_collection("counts"):
                count.value += 1
            return x

    network = functional(Counting())
    variables = network.init(jax.random.key(0), jnp.ones(2))
    for train in (False, True):
        statistics = network.apply(variables, jnp.ones(2), train=train)[1]
        assert statistics["counts"]["calls"] == variables["counts"]["calls"] + train


def test_boxes_around_parameters_are_taken_off():
    init = nn.with_partitioning(nn.initializers.ones, (None, "model"))

    class Boxed(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            return nn.Dense(3, kernel_init=init)(x)

    kernel = functional(Boxed()).init(jax.random.key(0), jnp.ones((1, 2)))["params"]["Dense_0"]
    assert isinstance(kernel["kernel"], jax.Array)
