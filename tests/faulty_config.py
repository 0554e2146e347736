"""A run of which one process does something bad at its third step: FAULT=nan:1, hang:0, raise:1.

With FAULT=slow: every step of all processes takes longer.
"""

import dataclasses
import os
import time

import jax
import jax.numpy as jnp
import numpy as np

from afd_jax.runs.program import Update
from tests import digits_config

_update = Update.__call__


def get_config(argument=""):
    kind, index = os.environ["FAULT"].split(":")
    if os.environ.get("JAX_PROCESS_ID", "") == index:
        calls = iter(range(1000))

        def faulty(self, state, batch):
            if kind == "slow":
                time.sleep(0.2)
            elif next(calls) == 2:
                state = FAULTS[kind](state)
            return _update(self, state, batch)

        Update.__call__ = faulty
    return digits_config.get_config(argument)


def _nan(state):
    def spoilt(x):
        return x * np.nan if jnp.issubdtype(x.dtype, jnp.floating) else x

    return dataclasses.replace(state, networks=jax.tree.map(spoilt, state.networks))


def _hang(_):
    time.sleep(600)


def _raise(_):
    raise RuntimeError("a fault of one process")


FAULTS = {"nan": _nan, "hang": _hang, "raise": _raise}
