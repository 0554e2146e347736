"""Updates that PyTorch computed in float64, read and compared; experiments/reference made them.

The files number networks and nodes; here they have names, and a source's number is its position.
"""

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


def require_equal_updates(plan, arrays, *, atol=1e-12, **options):
    """Takes two steps from the start in the file; returns the state after them."""
    state = state_before(plan, arrays)
    step = jax.jit(functools.partial(train_step, plan, detailed=False, **options))
    for i in range(2):
        state, metrics = step(state, batch_of(arrays, i))
        ours = {
            f"losses/{k}/{term.removeprefix('loss/')}": value
            for k, node in enumerate(plan.graph.names)
            for term, value in metrics[node].items()
            if term.startswith("loss/")
        }
        assert set(ours) == {n for n in arrays if n.startswith("losses/")}
        for term, value in ours.items():
            np.testing.assert_allclose(value, arrays[term][i], rtol=1e-6, err_msg=term)

    used = set()
    for n, network, leaf in named(plan, state):
        if f"after/{n}" in arrays:
            used.add(f"after/{n}")
            assert leaf.dtype == jnp.float64, n
            np.testing.assert_allclose(leaf, arrays[f"after/{n}"], rtol=1e-6, atol=atol, err_msg=n)
        else:  # bit for bit: a frozen teacher, and what was trained on top of it
            assert network in plan.graph.teachers, n
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


def named(plan, state):
    """Name in the files, network and value of every floating-point number of a network."""
    for path, leaf in jax.tree.leaves_with_path(state.networks):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            yield name_in_file(plan, path), path[0].key, leaf


def name_in_file(plan, path):
    """The name of a leaf of the networks' states in the files."""
    network, *rest = jax.tree_util.keystr(path, simple=True, separator="\n").split("\n")
    numbers = {name: str(k) for k, name in enumerate(plan.networks)}
    if rest[0] == "optimizers":
        update, *inner = rest[1:]
        (at,) = (i for i, key in enumerate(inner) if key in ROLES)
        kind, rest = f"{update}/{ROLES[inner[at]]}", inner[at + 1 :]
    else:
        kind, rest = rest[0], [key for key in rest[1:] if key != "batch_stats"]
    if rest[0] == "heads":  # node and head
        head = re.sub(r"critic.*", "discriminator", rest[2])
        if "from_" in head:
            own, _, source = head.partition("from_")
            head = f"{own}from_{numbers[source]}"
        rest = [head, *rest[3:]]
    return "/".join([kind, numbers[network], *rest])


def state_before(plan, arrays):
    """The start in the file; what it does not have is zero."""
    used = set()

    def load(path, leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return np.zeros(leaf.shape, leaf.dtype)
        name = f"before/{name_in_file(plan, path)}"
        if "/exp_avg" in name or "/momentum_buffer" in name:
            return np.zeros(leaf.shape, np.float64)
        assert arrays[name].shape == leaf.shape, name
        used.add(name)
        return arrays[name]

    shapes = state_shapes(plan)  # quicker than compiling `init_state`
    networks = jax.tree.map_with_path(load, shapes.networks)
    assert used == {name for name in arrays if name.startswith("before/")}
    rest = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes.replace(networks={}))
    return rest.replace(networks=networks)
