"""README.md beside an exported network: what it is, what it reached, how to load it."""

from collections.abc import Mapping
from typing import Any

_INTRODUCE = {
    "safetensors": """The tensors, by their paths; `architecture.json` has shapes and normalisation:

```python
from safetensors.numpy import load_file

tensors = load_file("model.safetensors")
```""",
    "stablehlo": """A program for CPU, CUDA and TPU; needs `jax` and `flatbuffers`:

```python
import jax
import numpy as np

exported = jax.export.deserialize(bytearray(open("model.stablehlo", "rb").read()))
images = np.zeros((2, {shape}), np.uint8)
probabilities = jax.jit(exported.call)(images)
```""",
    "onnx": """The same for ONNX Runtime (needs `onnxruntime`, no JAX):

```python
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
images = np.zeros((2, {shape}), np.uint8)
(probabilities,) = session.run(["probabilities"], {{"images": images}})
```""",
}


def card(description: Mapping[str, Any], files: Mapping[str, Mapping[str, Any]]) -> str:
    """The text.

    Args:
      description: "network", "node", "role", "classes", "data", "method", "edges", "accuracy"
        (lines), "note", "commit", "versions", "exported_with", "image_shape".
      files: as `write` returns them.
    """
    facts, data = description, description["data"]
    shape = ", ".join(map(str, facts["image_shape"]))
    lines = [f"# {facts['node']}", ""]
    if facts["note"]:
        lines += [f"**{facts['note']}.**", ""]
    edges = ", ".join(f"{source} → {target}" for source, target in facts["edges"]) or "none"
    versions, exported = (
        ", ".join(f"{name} {version}" for name, version in facts[field].items())
        for field in ("versions", "exported_with")
    )
    role = "a twin, which learned alone" if facts["role"] == "twin" else facts["role"]
    lines += [
        f"A `{facts['network']}` ({role}) trained with afd_jax. It maps images "
        f"[batch, {shape}] uint8 to probabilities of {facts['classes']} classes.",
        "",
        "| | |",
        "|---|---|",
        f"| data | {data['name']}{data['size']} |",
        f"| method | {facts['method']} |",
        f"| graph (source → target) | {edges} |",
        f"| seed of these parameters | {facts['seed']} |",
        *(f"| {name} | {value} |" for name, value in facts["accuracy"].items()),
        f"| commit of the code | {facts['commit'] or 'unknown'} |",
        f"| versions | {versions} |",
        f"| exported with | {exported} |",
        "| settings | [settings.json](settings.json) |",
        "| licence of the data | see its source |",
        "",
        "Classes are in `architecture.json` (`class_names`), in the order of the outputs.",
        "",
    ]
    for kind, file in files.items():
        lines += [f"## {file['file']}", "", _INTRODUCE[kind].format(shape=shape), ""]
        lines += [f"Checked in a fresh process: {_compared(kind, file['difference'])}.", ""]
    lines += [
        "`reference.npz` holds 8 random images with this network's features and probabilities."
    ]
    return "\n".join(lines) + "\n"


def _compared(kind: str, difference: float | None) -> str:
    if difference is None:
        return "names, shapes and the digest of the tensors match; no outputs were compared"
    what = "its last layer" if kind == "safetensors" else "it"
    how = f"to within {difference:.1e}" if difference else "exactly"
    return f"{what} reproduces the probabilities in `reference.npz` {how}"
