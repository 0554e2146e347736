"""Reads one exported file in a process of its own, without afd_jax, and prints what it found.

`python -P check.py FORMAT FOLDER` prints a JSON object: "difference", the largest from the numbers
in reference.npz, and "milliseconds" by batch size where the file is a program.
"""

import hashlib
import json
import pathlib
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

FILES = {"safetensors": "model.safetensors", "stablehlo": "model.stablehlo", "onnx": "model.onnx"}
REFERENCE = "reference.npz"
ARCHITECTURE = "architecture.json"
BATCHES = (1, 32)


def check(kind: str, folder: pathlib.Path) -> dict[str, Any]:
    """What came out of one file."""
    with np.load(folder / REFERENCE) as file:
        reference = dict(file)
    if kind == "safetensors":
        return {"difference": _tensors(folder, reference), "milliseconds": {}}
    run = _stablehlo(folder) if kind == "stablehlo" else _onnx(folder)
    images, wanted = reference["images"], reference["probabilities"]
    # An odd number of images as well: the batch must be free.
    differences = [np.abs(run(images[:n]) - wanted[:n]).max() for n in (len(images), 3)]
    times = {}
    for size in BATCHES:
        batch = np.resize(images, (size, *images.shape[1:]))
        times[str(size)] = _milliseconds(run, batch)
    return {"difference": float(max(differences)), "milliseconds": times}


def _stablehlo(folder: pathlib.Path) -> Callable[[Any], Any]:
    import jax
    import jax.export

    exported = jax.export.deserialize(bytearray((folder / FILES["stablehlo"]).read_bytes()))
    run = jax.jit(exported.call)
    return lambda images: np.asarray(run(images))


def _onnx(folder: pathlib.Path) -> Callable[[Any], Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(
        folder / FILES["onnx"], providers=["CPUExecutionProvider"]
    )
    return lambda images: session.run(["probabilities"], {"images": images})[0]


def _tensors(folder: pathlib.Path, reference: dict[str, Any]) -> float | None:
    """Checks names, shapes, types and digest; the difference of the last layer, if it is named."""
    import ml_dtypes  # noqa: F401 - NumPy then knows bfloat16
    from safetensors.numpy import load_file

    facts = json.loads((folder / ARCHITECTURE).read_text())
    tensors = load_file(folder / FILES["safetensors"])
    found = {n: {"shape": [*x.shape], "dtype": x.dtype.name} for n, x in tensors.items()}
    if found != facts["tensors"]:
        raise ValueError("the tensors are not those that architecture.json lists")
    if digest(tensors) != facts["sha256"]:
        raise ValueError("the tensors do not have the digest that architecture.json has")
    if not facts["classifier"]:
        return None
    kernel, bias = (tensors[name] for name in facts["classifier"])
    logits = reference["features"].mean((1, 2)) @ kernel + bias
    return float(np.abs(_softmax(logits) - reference["probabilities"]).max())


def digest(tensors: dict[str, Any]) -> str:
    """SHA-256 of all tensors in the order of their names, without a file's header."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(name.encode())
        found.update(np.ascontiguousarray(tensors[name]).tobytes())
    return found.hexdigest()


def _softmax(logits: Any) -> Any:
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def _milliseconds(run: Callable[[Any], Any], batch: Any) -> float:
    """The median of 20 calls, after two that compile and warm up."""
    times = []
    for _ in range(22):
        start = time.perf_counter()
        run(batch)
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[2:])


if __name__ == "__main__":
    kind, folder = sys.argv[1:]
    print(json.dumps(check(kind, pathlib.Path(folder))))
    unwanted = {"afd_jax", "flax"} | (set() if kind == "stablehlo" else {"jax"})
    if unwanted & {*sys.modules}:
        raise SystemExit(f"{kind} was read with {unwanted & {*sys.modules}}")
