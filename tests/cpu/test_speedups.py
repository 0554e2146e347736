"""What is there for the CPU's sake changes speed, not numbers, and stays on CPUs."""

import functools
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from afd_jax import speedups
from afd_jax.cpu import huge_pages
from afd_jax.cpu.convolution import conv_general_dilated
from afd_jax.networks import create
from afd_jax.networks.functional import draw, functional

LAYOUT = lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pads", "channels", "features"),
    [
        ((5, 6), 3, 1, ((1, 1), (1, 1)), 30, 5),  # two pixels together, forwards
        ((5, 8), 3, 1, ((1, 1), (1, 1)), 3, 20),  # two, and four backwards
        ((5, 7), 3, 1, ((1, 1), (1, 1)), 3, 5),  # a width that is odd
        ((9, 8), 3, 2, ((1, 1), (1, 1)), 3, 5),
        ((9, 8), 1, 2, ((0, 0), (0, 0)), 3, 5),
        ((11, 10), 5, 3, ((2, 1), (0, 2)), 3, 5),
        ((7, 9), 4, 2, ((0, 0), (1, 0)), 3, 5),
        ((4, 4), 3, 2, ((1, 1), (1, 1)), 30, 30),  # a gradient smaller than the window
    ],
)
def test_a_convolution_and_its_gradients_are_those_of_jax(
    size, kernel, stride, pads, channels, features
):
    images = jax.random.normal(jax.random.key(0), (2, *size, channels))
    weights = jax.random.normal(jax.random.key(1), (kernel, kernel, channels, features))

    @jax.jit
    def run(images, weights):
        def loss(images, weights):
            out = speedups.conv_general_dilated(
                images,
                weights,
                (stride, stride),
                pads,
                lhs_dilation=(1, 1),
                rhs_dilation=(1, 1),
                dimension_numbers=LAYOUT,
                feature_group_count=1,
            )
            return jnp.sum(jnp.sin(out)), out

        return jax.grad(loss, (0, 1), has_aux=True)(images, weights)

    theirs = run(images, weights)
    with speedups.forms("cpu"):
        ours = run(images, weights)
        assert "custom_vjp_call" in str(jax.make_jaxpr(conv_of_ones)(images, weights))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), ours, theirs)


def conv_of_ones(images, weights):
    return speedups.conv_general_dilated(
        images, weights, (1, 1), ((0, 0), (0, 0)), dimension_numbers=LAYOUT
    )


def windows(*shape):
    """The windows of a convolution's program, forwards and backwards."""
    images, weights = jnp.zeros((2, 4, 4, shape[0])), jnp.zeros((3, 3, *shape))
    pads = ((1, 1), (1, 1))

    def loss(images, weights):
        return conv_general_dilated(images, weights, (2, 2), pads, dimension_numbers=LAYOUT).sum()

    program = jax.jit(jax.grad(loss, (0, 1))).lower(images, weights).compile().as_text()
    return [line for line in program.splitlines() if "convolution(" in line]


def test_the_compiler_does_not_exchange_operands():
    found = windows(30, 30)
    assert found and not any("rhs_reversal" in line for line in found)


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
def test_relu_is_flax_relu(platform):
    x = jnp.array([-jnp.inf, -2.0, -0.0, 0.0, 3.0, jnp.inf])
    with speedups.forms(platform):
        relu = speedups.relu
        np.testing.assert_array_equal(relu(x), nn.relu(x))
        np.testing.assert_array_equal(jax.vmap(jax.grad(relu))(x), jax.vmap(jax.grad(nn.relu))(x))
        assert jnp.isnan(relu(jnp.nan))


def traced():
    """The program of a small network's gradient, in the forms that hold."""
    network = functional(create("resnet8", 10))
    shapes = jax.eval_shape(functools.partial(draw, network, (8, 8, 3), 0), jax.random.key(0))
    images = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)

    def loss(variables, images):
        return jnp.sum(network.apply(variables, images, train=True)[0].logits)

    return str(jax.make_jaxpr(jax.grad(loss))(shapes, images))


def test_forms_are_those_of_jax_but_inside_the_context_for_cpus():
    plain = traced()
    with speedups.forms("cpu"):
        own = traced()
        with speedups.forms("tpu"):
            assert traced() == plain
        assert traced() == own
    assert traced() == plain != own
    assert "custom_jvp_call" in plain or "max" in plain


def test_compiled_programs_of_both_forms_are_kept_apart():
    run = jax.jit(speedups.relu)
    x = jnp.ones(3)

    def is_maximum():
        return "maximum" in run.lower(x).as_text()

    assert is_maximum()
    with speedups.forms("cpu"):
        assert not is_maximum()
        run(x)
    assert is_maximum()


def test_the_compiler_still_knows_the_options():
    assert speedups.compiler_options("cpu") and speedups.once_options("cpu")
    assert speedups.compiler_options("gpu") is speedups.once_options("gpu") is None
    assert speedups.seeds_take_turns("cpu") and not speedups.seeds_take_turns("gpu")


# An editable installation finds a part of the package that is missing beside the rest.
HERE_ONLY = """
import sys
sys.meta_path = [f for f in sys.meta_path if "Editable" not in getattr(f, "__name__", "")]
"""
SCRIPT = """
import jax, jax.numpy as jnp, numpy as np
from afd_jax import speedups
from afd_jax.networks import create
from afd_jax.networks.functional import functional

network = functional(create("resnet8", 10))
images = jnp.sin(jnp.arange(4.0 * 8 * 8 * 3)).reshape(4, 8, 8, 3)

def compute(key):
    variables = network.init(key, images)

    def loss(params):
        own = {**variables, "params": params}
        outputs, statistics = network.apply(own, images, train=True)
        return jnp.sum(jnp.square(outputs.logits)), (outputs, statistics)

    return jax.value_and_grad(loss, has_aux=True)(variables["params"])

with speedups.forms("cpu"):
    options = speedups.compiler_options("cpu")
    results = jax.jit(compute, compiler_options=options)(jax.random.key(0))
speedups.once_options("cpu")
if not speedups.HAS_CPU:
    assert not speedups.seeds_take_turns("cpu") and options is None
    speedups.use_huge_pages()
np.savez(sys.argv[1], *map(np.asarray, jax.tree.leaves(results)))
print(speedups.HAS_CPU, speedups.__file__)
"""


def test_without_the_folder_the_numbers_are_the_same(tmp_path):
    def numbers(folder, has_cpu):
        environment = {**os.environ, "PYTHONPATH": str(folder)}
        file = tmp_path / f"{has_cpu}.npz"
        command = [sys.executable, "-c", HERE_ONLY + SCRIPT, str(file)]
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, cwd=folder, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == [str(has_cpu), str(folder / "afd_jax" / "speedups.py")]
        with np.load(file) as arrays:
            return [*arrays.values()]

    package = pathlib.Path(speedups.__file__).parent
    without = shutil.copytree(
        package, tmp_path / "afd_jax", ignore=shutil.ignore_patterns("cpu", "__pycache__")
    )
    ours, theirs = numbers(package.parent, True), numbers(without.parent, False)
    assert len(ours) == len(theirs) > 50
    assert any(np.any(a != b) for a, b in zip(ours, theirs, strict=True))  # other forms
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * max(1, np.max(np.abs(b))))
    (without / "cpu" / "__pycache__").mkdir(parents=True)  # what deleting may leave behind
    check = f"{HERE_ONLY}from afd_jax import speedups; assert not speedups.HAS_CPU"
    subprocess.run([sys.executable, "-c", check], check=True, cwd=without.parent)


class Replaced(Exception):
    pass


@pytest.fixture
def starts(monkeypatch):
    """Whether the program would start anew, in an environment without surprises."""

    def replace(*_):
        raise Replaced

    monkeypatch.setattr(huge_pages.os, "execv", replace)
    monkeypatch.setattr(huge_pages, "_glibc", lambda: True)
    monkeypatch.setattr(huge_pages.glob, "glob", lambda _: [])
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sys, "gettrace", lambda: None)
    for name in ("IPython", "ipykernel", "debugpy", "pydevd"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name in ("GLIBC_TUNABLES", "JAX_PLATFORMS", "JAX_PLATFORM_NAME"):
        monkeypatch.delenv(name, raising=False)

    def starts():
        try:
            speedups.use_huge_pages()
        except Replaced:
            monkeypatch.delenv("GLIBC_TUNABLES")
            return True
        return False

    return starts


def test_it_starts_anew_on_cpus(starts, monkeypatch):
    assert starts()
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setattr(huge_pages.glob, "glob", lambda pattern: [pattern])
    assert starts()


@pytest.mark.parametrize("name", ["IPython", "ipykernel", "debugpy", "pydevd"])
def test_it_does_not_start_anew_under_somebodys_eyes(name, starts, monkeypatch):
    monkeypatch.setitem(sys.modules, name, sys)
    assert not starts()


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.setattr(sys, "gettrace", lambda: print),
        lambda m: m.setattr(sys, "platform", "darwin"),
        lambda m: m.setattr(sys, "executable", ""),
        lambda m: m.setattr(huge_pages, "_glibc", lambda: False),
        lambda m: m.setenv("GLIBC_TUNABLES", "x"),
        lambda m: m.setenv("JAX_PLATFORMS", "cuda,cpu"),
        lambda m: m.setenv("JAX_PLATFORM_NAME", "tpu"),
        lambda m: m.setattr(huge_pages.glob, "glob", lambda p: ["/dev/nvidia0"] * ("nvidia" in p)),
        lambda m: m.setattr(huge_pages.glob, "glob", lambda p: ["/dev/accel0"] * ("accel" in p)),
    ],
)
def test_it_does_not_start_anew_elsewhere(change, starts, monkeypatch):
    change(monkeypatch)
    assert not starts()


def test_nothing_heavy_is_imported_before_starting_anew():
    script = "import sys; from afd_jax import speedups; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
