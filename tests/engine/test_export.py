"""A step for other platforms, written out on this machine: nothing in it is there for CPUs."""

import functools
import re

import jax
import jax.export
import pytest

from afd_jax import speedups
from afd_jax.engine.init import state_shapes
from afd_jax.engine.step import train_step
from afd_jax.networks import CifarResNet
from afd_jax.networks.chain import SCAN_FROM
from tests import small


class Same(CifarResNet):
    """Under another name, so that nothing that was traced for the one serves for the other."""


DEPTHS = {"short": (8, 8), "long": (6 * (SCAN_FROM + 1) + 2, 8)}


def text(kind, depths, platform, forms):
    """A step's program, without the places that it comes from."""
    networks = {
        n: kind(5, depth=d, widths=(3, 4, 5), stem_width=3)
        for n, d in zip("ab", depths, strict=True)
    }
    cohort = small.Cohort(networks, small.afd(), **small.SHAPES)
    step = jax.jit(functools.partial(train_step, cohort.plan))
    shapes = state_shapes(cohort.plan)
    with speedups.forms(forms):
        exported = jax.export.export(step, platforms=[platform])(shapes, small.batch())
    assert exported.platforms == (platform,)
    lines = [x for x in exported.mlir_module().splitlines() if not x.startswith("#loc")]
    return re.sub(r" loc\(.*?\)+$", "", "\n".join(lines), flags=re.MULTILINE)


@pytest.mark.parametrize(("size", "platform"), [("short", "cuda"), ("long", "tpu")])
def test_a_step_for_other_platforms_is_the_plain_one(size, platform, monkeypatch):
    """As it would be if the folder `cpu` was deleted; in the forms for CPUs it is another."""
    found = text(CifarResNet, DEPTHS[size], platform, platform)
    assert ("stablehlo.while" in found) == (size == "long")
    if size == "short" and platform == "cuda":
        assert found != text(CifarResNet, DEPTHS[size], platform, "cpu")
    monkeypatch.setattr(speedups, "HAS_CPU", False)
    assert found == text(Same, DEPTHS[size], platform, platform)
