"""Shapes of networks' variables, without computing or compiling anything."""

import functools

import jax

from afd_jax.networks.functional import draw, functional, run


def variables(module, shape=(32, 32, 3)):
    return jax.eval_shape(functools.partial(draw, functional(module), shape, 0), jax.random.key(0))


def parameters(module, shape=(32, 32, 3)):
    return sum(x.size for x in jax.tree.leaves(variables(module, shape)["params"]))


def outputs(module, shape=(32, 32, 3)):
    images = jax.ShapeDtypeStruct((2, *shape), "float32")
    answer = functools.partial(run, functional(module), train=False)
    return jax.eval_shape(answer, variables(module, shape), images, {})[0]
