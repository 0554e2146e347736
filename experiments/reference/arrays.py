"""What the tests read: arrays before and after two updates, in this project's names and layout."""

import json
import pathlib

import numpy as np
from layers import Norm

FOLDER = pathlib.Path(__file__).parents[2] / "tests" / "reference"


def save(case, *, images, labels, before, after, losses, **more):
    """Writes tests/reference/update_<case>.npz: one vector, and names and shapes as JSON.

    images are [update, ..., channels, height, width]; losses map "node/term" to a value for each
    update; before and after are what `snapshot` gives.
    """
    arrays = {f"before/{name}": array for name, array in before.items()}
    arrays |= {f"after/{name}": array for name, array in after.items()}
    arrays |= {f"losses/{name}": np.array(values) for name, values in losses.items()}
    arrays |= {"images": images.movedim(-3, -1).numpy(), "labels": labels.numpy()}
    arrays |= {name: value.numpy() for name, value in more.items()}
    index = json.dumps({name: array.shape for name, array in arrays.items()})
    values = np.concatenate([a.ravel().astype(np.float64) for a in arrays.values()])
    np.savez_compressed(FOLDER / f"update_{case}.npz", index=index, values=values)
    print(case, {name: [round(x, 4) for x in v] for name, v in losses.items()})


def snapshot(modules, optimizers):
    """All numbers of modules, by role, and what pairs (update, optimizer) keep of them."""
    arrays = {}
    for role, module in modules.items():
        for name, parameter in module.named_parameters():
            path = f"{role}/{rename(name)}"
            arrays[f"params/{path}"] = layout(parameter)
            for update, optimizer in optimizers:
                for key, value in optimizer.state.get(parameter, {}).items():
                    if key != "step":
                        arrays[f"{update}/{key}/{path}"] = layout(value)
        for name, norm in module.named_modules():
            if isinstance(norm, Norm):
                path = f"{role}/{name.replace('.', '/')}"
                arrays[f"statistics/{path}/mean"] = layout(norm.mean)
                arrays[f"statistics/{path}/var"] = layout(norm.var)
    return arrays


def rename(name):
    path = name.replace(".", "/").replace("classifier/", "classifier/linear/")
    return path.replace("weight", "kernel")


def layout(value):
    """Convolutions from [out, in, h, w] to [h, w, in, out], matrices transposed."""
    array = value.detach().clone()
    order = {4: (2, 3, 1, 0), 2: (1, 0)}.get(array.ndim)
    return (array.permute(order) if order else array).numpy().copy()
