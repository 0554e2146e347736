"""What people type: the face of the package, imported when it is touched."""

import pathlib
import subprocess
import sys

import pytest

SNIPPET = """
import jax, optax
import afd_jax as afd

batch = afd.data.load("digits").train.batch(64)
cohort = afd.Cohort(["resnet8", "resnet14"], afd.methods.AFD(temperature=3.0), image_shape=(8, 8, 1), classes=10)
cohort.graph                                   # draws itself in a notebook, prints as text
state = cohort.init(jax.random.key(0))         # the paper's optimizers unless given
outputs = cohort.forward(state, batch)         # by node name
terms = cohort.losses(state, batch)            # terms["resnet8"].logit["distillation"]: [64]
grads = cohort.gradients(state, batch)         # per node and update
state, metrics = cohort.step(state, batch)     # jitted; the same numbers
"""  # noqa: E501


def test_what_people_type_is_in_the_readme():
    """Verbatim; tests/docs runs it. That the numbers are the same: tests/engine/test_cohort.py."""
    readme = (pathlib.Path(__file__).parents[1] / "README.md").read_text()
    assert f"```python{SNIPPET}```" in readme


def run(program):
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_costs_nothing_that_is_not_touched():
    """Losses need JAX alone; the face needs nothing."""
    program = """
import sys
before = {*sys.modules}
import afd_jax as afd
assert "jax" not in sys.modules and "losses" in dir(afd)
for name in ("flax", "tensorflow_datasets", "sklearn", "matplotlib", "PIL", "tqdm", "orbax"):
    sys.modules[name] = None  # as if it were not installed
import afd_jax.losses
afd.losses.cross_entropy
"""
    run(program)


def test_networks_and_a_cohort_need_no_data_and_no_plots():
    program = """
import sys
for name in ("tensorflow_datasets", "sklearn", "matplotlib", "PIL", "tqdm", "array_record"):
    sys.modules[name] = None
import afd_jax as afd
afd.Cohort(["tests.tiny:Tiny"] * 2, afd.methods.DML(), image_shape=(8, 8, 1), classes=3)
"""
    run(program)


def test_a_name_that_the_face_does_not_have():
    with pytest.raises(AttributeError, match="module 'afd_jax' has no attribute 'Kohort'"):
        import afd_jax

        _ = afd_jax.Kohort
