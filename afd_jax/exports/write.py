"""Writing a trained network: tensors with their description, and programs for other places."""

import json
import os
import pathlib
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from afd_jax.errors import SettingError, first_line, one_of
from afd_jax.exports import check
from afd_jax.networks.chain import written_out
from afd_jax.networks.functional import functional
from afd_jax.networks.outputs import Outputs, as_nodes
from afd_jax.runs.trained import TrainedNetwork

FORMATS = tuple(check.FILES)
PLATFORMS = ("cpu", "cuda", "tpu")
TOLERANCE = 1e-5


class WrongOutputsError(Exception):
    """An exported file does not give the trained network's numbers."""


def write(
    network: TrainedNetwork, folder: pathlib.Path, formats: Sequence[str], facts: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Writes a network in several formats, and reads each file again in a fresh process.

    Args:
      network: with its image shape.
      folder: where to; files there are replaced.
      formats: some of `FORMATS`.
      facts: what else architecture.json is to hold.

    Returns:
      For each format {"file", "bytes", "difference", "milliseconds"}: the largest difference of a
      probability (None where only names, shapes and digest could be compared), and the time that a
      batch takes on this machine's CPU, by its size.

    Raises:
      SettingError: for an unknown format, or a network that a format cannot hold.
      WrongOutputsError: if a file gives other probabilities, by more than `TOLERANCE`.
    """
    if network.image_shape is None:
        raise SettingError("network", network.name, "has no image_shape")
    require_formats(formats)
    folder.mkdir(parents=True, exist_ok=True)
    forward, probabilities = _functions(network)
    shape = network.image_shape
    images = np.random.default_rng(0).integers(0, 256, (8, *shape), dtype=np.uint8)
    with jax.default_device(_cpu()):  # the files are compared on a CPU, too
        outputs = jax.device_get(jax.jit(forward)(images))
        reference: dict[str, Any] = {
            "images": images,
            "features": np.asarray(outputs.features, np.float32),
            # As the program computes them: in half precision, another one may round otherwise.
            "probabilities": np.asarray(jax.jit(probabilities)(images)),
        }
    np.savez_compressed(folder / check.REFERENCE, **reference)
    tensors = named(network.variables)
    description = {
        **facts,
        "class_names": list(network.class_names),
        "image_shape": list(shape),
        "normalisation": {
            "formula": "(images / 255 - mean) / std, per channel",
            "mean": list(network.recipe.mean),
            "std": list(network.recipe.std),
        },
        "layout": {
            "images": "[batch, height, width, channels] uint8",
            "kernels": "convolutions [height, width, inputs / groups, outputs], linear layers "
            "[inputs, outputs]; of a loop over equal blocks with the blocks in front",
        },
        "classifier": _classifier(tensors, outputs),
        "tensors": {n: {"shape": [*x.shape], "dtype": x.dtype.name} for n, x in tensors.items()},
        "sha256": check.digest(tensors),
    }
    (folder / check.ARCHITECTURE).write_text(json.dumps(description, indent=2) + "\n")
    found = {}
    for kind in formats:
        file = folder / check.FILES[kind]
        if kind == "safetensors":
            from safetensors.numpy import save

            content = save(tensors)  # save_file would make a file that only its owner can read
        else:
            content = (_stablehlo if kind == "stablehlo" else _onnx)(probabilities, shape)
        file.write_bytes(content)
        found[kind] = {"file": file.name, "bytes": file.stat().st_size, **_checked(kind, folder)}
    return found


def require_formats(formats: Sequence[str]) -> None:
    """Raises SettingError for a format that is not one of `FORMATS`."""
    for kind in formats:
        if kind not in FORMATS:
            raise SettingError("--formats", kind, one_of(kind, FORMATS))


def named(variables: Any) -> dict[str, np.ndarray]:
    """The arrays by their paths, "params/stem/conv/kernel"."""
    paths, _ = jax.tree.flatten_with_path(variables)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(x, order="C")
        for path, x in paths
    }


def _cpu() -> jax.Device:
    try:
        return jax.devices("cpu")[0]
    except RuntimeError as error:
        remedy = "an export needs a CPU, too: JAX_PLATFORMS=cuda,cpu"
        raise SettingError("JAX_PLATFORMS", os.environ.get("JAX_PLATFORMS"), remedy) from error


def _functions(
    network: TrainedNetwork,
) -> tuple[Callable[[Any], Outputs], Callable[[Any], jax.Array]]:
    """From uint8 images to outputs, and to probabilities; in the plain forms of every layer."""
    module = functional(network.module)
    variables = jax.tree.map(np.asarray, network.variables)

    def forward(images: jax.Array) -> Outputs:
        inputs = network.recipe.normalise(images)
        return as_nodes(module.apply(variables, inputs, train=False)[0])[network.output]

    return forward, lambda images: jax.nn.softmax(forward(images).logits.astype(jnp.float32))


def _classifier(tensors: Mapping[str, Any], outputs: Outputs) -> list[str] | None:
    """Names of kernel and bias of the linear layer on the pooled map, if there is such a layer."""
    pooled = np.asarray(outputs.features, np.float32).mean((1, 2))
    wanted = (pooled.shape[-1], outputs.logits.shape[-1])
    for name, kernel in tensors.items():
        bias = name.removesuffix("kernel") + "bias"
        if name.endswith("kernel") and kernel.shape == wanted and bias in tensors:
            logits = np.asarray(outputs.logits, np.float32)
            if np.allclose(pooled @ kernel + tensors[bias], logits, 1e-4, 1e-4):
                return [name, bias]
    return None


def _stablehlo(function: Callable[[Any], Any], shape: Sequence[int]) -> bytes:
    """With a free batch, for several platforms at once."""
    (batch,) = jax.export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *shape), jnp.uint8)
    try:
        return bytes(jax.export.export(jax.jit(function), platforms=PLATFORMS)(images).serialize())
    except Exception as error:  # of many kinds: a shape that depends on the batch, ...
        remedy = f"JAX cannot export this network ({first_line(error)[:200]}); leave out stablehlo"
        raise SettingError("--formats", "stablehlo", remedy) from error


def _onnx(function: Callable[[Any], Any], shape: Sequence[int]) -> bytes:
    """With a free batch, for ONNX Runtime and others."""
    from jax2onnx import to_onnx

    images = jax.ShapeDtypeStruct(("batch", *shape), jnp.uint8)
    names = {"input_names": ["images"], "output_names": ["probabilities"]}
    try:
        # What Flax and JAX say about the converter's own calls is nothing to its users.
        with warnings.catch_warnings(), jax.numpy_rank_promotion("allow"), written_out():
            warnings.simplefilter("ignore")
            model: Any = to_onnx(function, [images], model_name="network", **names)
    except Exception as error:  # the converter has errors of every type
        remedy = f"jax2onnx cannot convert this network ({first_line(error)}); leave out onnx"
        raise SettingError("--formats", "onnx", remedy) from error
    # Notes on shapes between the layers, some of them wrong; whoever loads the model infers them.
    del model.graph.value_info[:]
    return bytes(model.SerializeToString())


def _checked(kind: str, folder: pathlib.Path) -> dict[str, Any]:
    command = [sys.executable, "-P", str(check.__file__), kind, str(folder.resolve())]
    on_cpu = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=on_cpu)
    if done.returncode:
        reason = (done.stderr.strip() or "no message").splitlines()[-1]
        raise WrongOutputsError(f"{check.FILES[kind]} cannot be read again: {reason}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    difference = found["difference"]
    if difference is not None and not difference <= TOLERANCE:
        words = f"{check.FILES[kind]} gives other probabilities, by up to {difference:.1g}"
        raise WrongOutputsError(words)
    return found
