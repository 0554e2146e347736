"""What people type: the face of the package, imported when it is touched."""

import subprocess
import sys

import numpy as np
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


@pytest.fixture(scope="module")
def typed():
    names = {}
    exec(SNIPPET, names)
    return names


def test_what_people_type(typed):
    assert str(typed["cohort"].graph) == "resnet8 -> resnet14\nresnet14 -> resnet8"
    assert typed["cohort"].graph._repr_svg_().startswith("<svg") and "AFD" not in typed
    assert typed["outputs"]["resnet14"].logits.shape == (64, 10)
    assert typed["terms"]["resnet8"].logit["distillation"].shape == (64,)
    assert {*typed["grads"]["resnet8"]} == {"logit", "feature", "discriminator"}
    assert int(typed["state"].step) == 1


def test_the_step_has_the_same_numbers(typed):
    """The parts are computed another way than in the step."""
    for node, terms in typed["terms"].items():
        metrics = typed["metrics"][node]
        for update in ("logit", "feature", "discriminator"):
            for name, values in getattr(terms, update).items():
                np.testing.assert_allclose(metrics[f"loss/{name}"], np.mean(values), rtol=1e-5)
            leaves = typed["jax"].tree.leaves(typed["grads"][node][update])
            norm = np.sqrt(sum(float((leaf**2).sum()) for leaf in leaves))
            np.testing.assert_allclose(metrics[f"gradient_norm/{update}"], norm, rtol=1e-4)


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
