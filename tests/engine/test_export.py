"""A step for other platforms, written out on this machine: nothing in it is there for CPUs."""

import functools

import jax
import jax.export
import pytest

from afd_jax import speedups
from afd_jax.engine.init import state_shapes
from afd_jax.engine.step import train_step
from afd_jax.networks import CifarResNet
from afd_jax.networks.chain import SCAN_FROM
from tests import small

RESNET = functools.partial(CifarResNet, 5, widths=(3, 4, 5), stem_width=3)
SHORT, LONG = RESNET(depth=8), RESNET(depth=6 * (SCAN_FROM + 1) + 2)


def text(cohort, platform, forms):
    step = jax.jit(functools.partial(train_step, cohort.plan))
    with speedups.forms(forms):
        exported = jax.export.export(step, platforms=[platform])(
            state_shapes(cohort.plan), small.batch()
        )
    assert exported.platforms == (platform,)
    return exported.mlir_module()


@pytest.mark.parametrize(
    ("networks", "platform"),
    [([SHORT, SHORT], "cuda"), ([SHORT, SHORT], "tpu"), ([LONG, SHORT], "cuda")],
    ids=["short-cuda", "short-tpu", "long-cuda"],
)
def test_a_step_for_other_platforms_is_the_plain_one(networks, platform, monkeypatch):
    cohort = small.Cohort(networks, small.afd(), **small.SHAPES)
    assert LONG not in networks or "blocks_and_on" in str(jax.tree.structure(cohort.plan.networks))
    found = text(cohort, platform, platform)
    with monkeypatch.context() as patch:  # as if the folder `cpu` was deleted
        patch.setattr(speedups, "HAS_CPU", False)
        jax.clear_caches()
        plain = text(cohort, platform, platform)
    assert found == plain
    jax.clear_caches()
    if platform == "cuda" and LONG not in networks:
        for_cpu = text(cohort, "cpu", "cpu")
        assert for_cpu.count("convolution") > found.count("convolution") > 40
