"""Runs the same pure step under jit, pmap or shard_map, over one or many devices and hosts.

All three split the batch over the devices and keep one replicated, unstacked state, so a state or a
checkpoint moves freely between them.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from afd_jax import speedups
from afd_jax.engine.init import state_shapes
from afd_jax.engine.plan import Plan
from afd_jax.errors import SettingError, one_of, require_number

AXIS = "data"
MODES = ("jit", "pmap", "shard_map")


@dataclasses.dataclass(frozen=True)
class Devices:
    """How to run a step on the devices at hand.

    Attributes:
      mode: "jit" (the compiler splits the batch), "pmap" or "shard_map" (each device runs the step
        on its part, and gradients and BatchNorm statistics are averaged by name).
      devices: all devices of the run, over all hosts.

    Raises:
      SettingError: if the mode is unknown.
    """

    mode: str
    devices: tuple[jax.Device, ...]

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise SettingError("parallel.mode", self.mode, one_of(self.mode, MODES))

    @property
    def axis_name(self) -> str | None:
        """The device axis that a step must average over; None under jit, where arrays are whole."""
        return None if self.mode == "jit" else AXIS

    @functools.cached_property
    def mesh(self) -> jax.sharding.Mesh:
        """The devices in a row."""
        return jax.make_mesh((len(self.devices),), (AXIS,), (AxisType.Auto,), devices=self.devices)

    @property
    def platform(self) -> str:
        """Of the devices: "cpu", "gpu", "tpu"."""
        return self.devices[0].platform

    def prepare(self, plan: Plan) -> Plan:
        """Gives BatchNorm the device axis, where the mode has one.

        Raises:
          SettingError: for a network or head whose statistics cannot be synchronised.
        """
        if not self.axis_name:
            return plan
        whole = plan.with_axis(self.axis_name)
        for name, state in state_shapes(plan).networks.items():
            network = whole.networks[name]
            network.module.require_synchronised(state.statistics["network"])
            for node, heads in network.heads.items():
                for head, module in heads.items():
                    module.require_synchronised(state.statistics["heads"][node][head])
        return whole

    def check_batch_size(self, field: str, batch_size: int) -> None:
        """Raises SettingError unless the batch can be split evenly over the devices."""
        if batch_size % len(self.devices):
            remedy = f"must be a multiple of the {len(self.devices)} devices"
            raise SettingError(field, batch_size, remedy)

    def put_state(self, state: Any) -> Any:
        """Places a copy of the state on every device."""
        return jax.device_put(state, NamedSharding(self.mesh, P()))

    def shared_state(self, state: Any) -> Any:
        """The state as arrays of all hosts, as saving needs it; pmap returns arrays of one host."""
        if self.mode == "pmap" and jax.process_count() > 1:
            return multihost_utils.host_local_array_to_global_array(state, self.mesh, P())
        return state

    def put_batch(self, batch: Mapping[str, np.ndarray]) -> Any:
        """Splits this host's part of a batch over its devices.

        Args:
          batch: arrays whose axis 0 is this host's share of the global batch.
        """
        if self.mode == "pmap":
            local = sum(d.process_index == jax.process_index() for d in self.devices)
            return {name: x.reshape(local, -1, *x.shape[1:]) for name, x in batch.items()}
        sharding = NamedSharding(self.mesh, P(AXIS))
        return {
            name: jax.make_array_from_process_local_data(sharding, x) for name, x in batch.items()
        }

    def compile(self, step: Callable[..., Any], *, donate: bool, shared: bool = False) -> Any:
        """Wraps a `step(state, batch, axis_name=...)` that returns replicated values.

        Args:
          step: pure; under pmap and shard_map it sees its device's part of the batch.
          donate: let the step reuse the memory of the state it is given.
          shared: the step takes a third argument, which every device has the whole of.

        Returns:
          A jitted function (state, batch), which can also be lowered and compiled ahead of time.
        """
        step = self._in_forms(functools.partial(step, axis_name=self.axis_name))
        donated = (0,) if donate else ()
        if self.mode == "pmap":
            return jax.pmap(
                step,
                axis_name=AXIS,
                in_axes=(None, 0, None) if shared else (None, 0),
                out_axes=None,
                donate_argnums=donated,
                devices=self.devices,
            )
        parts = (P(), P(AXIS), P()) if shared else (P(), P(AXIS))
        if self.mode == "shard_map":
            # check_vma=False: the step averages its gradients itself, as under pmap.
            step = jax.shard_map(
                step, mesh=self.mesh, in_specs=parts, out_specs=P(), check_vma=False
            )
        return jax.jit(
            step,
            in_shardings=tuple(NamedSharding(self.mesh, part) for part in parts),
            out_shardings=NamedSharding(self.mesh, P()),
            donate_argnums=donated,
            compiler_options=speedups.compiler_options(self.platform),
        )

    def _in_forms(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """The step, traced in the forms that are quick on these devices."""

        @functools.wraps(step)
        def traced(*args: Any) -> Any:
            with speedups.forms(self.platform):
                return step(*args)

        return traced


def make_devices(mode: str, devices: int | None = None) -> Devices:
    """Chooses the devices.

    Args:
      mode: "jit", "pmap", "shard_map", or "auto": pmap on several devices, jit on one.
      devices: use only so many, as many on each host; all if None.

    Raises:
      SettingError: if the mode is unknown, there are fewer devices, or the hosts cannot share them.
    """
    chosen = tuple(jax.devices())
    if devices is not None:
        hosts = jax.process_count()
        require_number("parallel.devices", devices, least=1, most=len(chosen), whole=True)
        if devices % hosts:
            raise SettingError("parallel.devices", devices, f"must be a multiple of {hosts} hosts")
        # Every host takes part with as many of its own.
        by_host = ([d for d in chosen if d.process_index == host] for host in range(hosts))
        chosen = tuple(d for own in by_host for d in own[: devices // hosts])
    if mode == "auto":
        mode = "pmap" if len(chosen) > 1 else "jit"
    return Devices(mode, chosen)
