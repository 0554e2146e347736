"""What a method trains on frozen teachers before the first step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from afd_jax.engine.evaluate import as_floats
from afd_jax.engine.prepare import prepare
from afd_jax.methods import KD
from tests import small, tiny


class Normed(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        return nn.BatchNorm(use_running_average=True)(x)


@dataclasses.dataclass(frozen=True)
class Shifted(KD):
    """Gives its teacher a head, and adds 100 to all of it."""

    def heads(self, own):
        return {"normed": Normed()} if own.role == "teacher" else {}

    def edge(self, own, source, batch):
        source.heads["normed"](source.features)
        return super().edge(own, source, batch)

    def prepare(self, teacher, heads, maps, rng):
        return jax.tree.map(lambda x: x + 100, heads)


def test_parameters_and_statistics_of_heads_are_those_that_the_method_returns():
    cohort = small.cohort([(3, 4, 5)], method=Shifted(), teachers={"t": tiny.Stages(5)})
    state = small.begin(cohort)
    before = state.networks["t"]
    after = prepare(cohort.plan, state, lambda: iter([small.batch(2)]), as_floats).networks["t"]
    for kind in ("params", "statistics"):
        old, new = (jax.tree.leaves(getattr(own, kind)["heads"]["t"]) for own in (before, after))
        assert len(old) == 2
        for a, b in zip(old, new, strict=True):
            np.testing.assert_allclose(b, jnp.asarray(a) + 100)
