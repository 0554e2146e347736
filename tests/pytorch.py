"""Updates that PyTorch computed in float64, read and compared; experiments/reference made them."""

import functools
import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np

from afd_jax.engine.init import state_shapes
from afd_jax.engine.step import train_step

FOLDER = pathlib.Path(__file__).parent / "reference"
ROLES = {"trace": "momentum_buffer", "mu": "exp_avg", "nu": "exp_avg_sq"}


def read(case):
    """The arrays of a case, cut out of one vector."""
    arrays, start = {}, 0
    with np.load(FOLDER / f"update_{case}.npz") as file:
        values = file["values"]
        for key, shape in json.loads(str(file["index"])).items():
            end = start + int(np.prod(shape))
            arrays[key], start = values[start:end].reshape(shape), end
    assert start == len(values)
    return arrays


def require_equal_updates(cohort, arrays, *, atol=1e-12, **options):
    """Takes two steps from the start in the file; returns the state after them."""
    state = state_before(cohort, arrays)
    step = jax.jit(functools.partial(train_step, cohort, **options))
    for i in range(2):
        state, metrics = step(state, batch_of(arrays, i))
        ours = {
            f"losses/{k}/{term.removeprefix('loss/')}": value
            for k, node in enumerate(metrics)
            for term, value in node.items()
            if term.startswith("loss/")
        }
        assert set(ours) == {n for n in arrays if n.startswith("losses/")}
        for term, value in ours.items():
            np.testing.assert_allclose(value, arrays[term][i], rtol=1e-6, err_msg=term)

    used = set()
    for n, leaf in named(state):
        if f"after/{n}" in arrays:
            used.add(f"after/{n}")
            assert leaf.dtype == jnp.float64, n
            np.testing.assert_allclose(leaf, arrays[f"after/{n}"], rtol=1e-6, atol=atol, err_msg=n)
        else:  # bit for bit: a frozen teacher, and what was trained on top of it
            assert int(n.split("/")[1]) in cohort.teachers, n
            np.testing.assert_array_equal(leaf, arrays[f"before/{n}"], err_msg=n)
    assert used == {n for n in arrays if n.startswith("after/")}
    return state


def batch_of(arrays, i):
    index = arrays["indices"][i] if "indices" in arrays else np.arange(6)
    batch = {
        "image": arrays["images"][i],
        "label": arrays["labels"][i].astype(np.int32),
        "index": index.astype(np.int32),
    }
    if "partner_images" in arrays:
        batch["partner_image"] = arrays["partner_images"][i]
        batch["partner"] = batch["index"]
    return batch


def named(state):
    """Name and value of every floating-point number that belongs to a network."""
    for path, leaf in jax.tree.leaves_with_path(state.peers):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            yield name_in_file(path), leaf


def name_in_file(path):
    """The name of a leaf of the networks' states in the files."""
    name = jax.tree_util.keystr(path, simple=True, separator="/").replace("projections/", "")
    if match := re.fullmatch(r"(\d)/discriminators/\w+/(params|batch_stats)/(.*)", name):
        kind = "params" if match[2] == "params" else "statistics"
        return f"{kind}/{match[1]}/discriminator/{match[3]}"
    if match := re.fullmatch(r"(\d)/optimizers/(\w+)/.*?(trace|mu|nu)/(.*)", name):
        update, role = match[2], ROLES[match[3]]
        rest = re.sub(r"^\w+", update, match[4]) if update == "discriminator" else match[4]
        return f"{update}/{role}/{match[1]}/{rest}"
    peer, kind, rest = name.replace("/batch_stats", "").split("/", 2)
    return f"{kind}/{peer}/{rest}"


def state_before(cohort, arrays):
    """The start in the file; what it does not have is zero."""
    used = set()

    def load(path, leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return np.zeros(leaf.shape, leaf.dtype)
        name = f"before/{name_in_file(path)}"
        if "/exp_avg" in name or "/momentum_buffer" in name:
            return np.zeros(leaf.shape, np.float64)
        assert arrays[name].shape == leaf.shape, name
        used.add(name)
        return arrays[name]

    shapes = state_shapes(cohort)  # quicker than compiling `init_state`
    peers = jax.tree.map_with_path(load, shapes.peers)
    assert used == {name for name in arrays if name.startswith("before/")}
    rest = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes.replace(peers=()))
    return rest.replace(peers=peers)
