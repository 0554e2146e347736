"""BatchNorm whose statistics are those of the whole batch, though each device has a part of it."""

import dataclasses

import jax
from flax import linen as nn

from afd_jax.engine.cohort import Cohort
from afd_jax.errors import SettingError
from afd_jax.engine.init import state_shapes


def synchronised(cohort: Cohort, axis_name: str) -> Cohort:
    """A copy whose BatchNorm layers average their statistics over a device axis.

    Raises:
      SettingError: if a network has BatchNorm statistics but no field `axis_name`.
    """

    def clone(module: nn.Module) -> nn.Module:
        return module.clone(axis_name=axis_name) if hasattr(module, "axis_name") else module

    for k, (peer, state) in enumerate(zip(cohort.peers, state_shapes(cohort).peers, strict=True)):
        averages = not peer.frozen and jax.tree.leaves(state.statistics["network"])
        if averages and not hasattr(peer.network, "axis_name"):
            remedy = (
                "has BatchNorm statistics but no field 'axis_name' to synchronise them over "
                "devices; add `axis_name: str | None = None` and pass it to nn.BatchNorm"
            )
            raise SettingError(f"networks[{k}]", peer.name, remedy)
    peers = tuple(
        dataclasses.replace(
            peer,
            network=clone(peer.network),
            projections={name: clone(m) for name, m in peer.projections.items()},
            discriminators={name: clone(m) for name, m in peer.discriminators.items()},
        )
        for peer in cohort.peers
    )
    return dataclasses.replace(cohort, peers=peers)
