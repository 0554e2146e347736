"""Makes up a PyTorch file of a ResNet-8 with three classes: python teacher.py FILE.safetensors.

Its tensors have the names that mdistiller gives them; their values are drawn at random.
"""

import sys

import numpy as np
from safetensors.numpy import save_file


def main(file: str) -> None:
    """Writes the file."""
    rng = np.random.default_rng(0)
    tensors: dict[str, np.ndarray] = {}

    def convolution(name: str, inputs: int, outputs: int, side: int) -> None:
        scale = np.sqrt(2 / (inputs * side**2))
        tensors[f"{name}.weight"] = scale * rng.normal(size=(outputs, inputs, side, side))

    def norm(name: str, channels: int) -> None:
        for part, value in {"weight": 1, "bias": 0, "running_mean": 0, "running_var": 1}.items():
            tensors[f"{name}.{part}"] = np.full(channels, float(value))

    convolution("conv1", 3, 16, 3)
    norm("bn1", 16)
    inputs = 16
    for stage, width in enumerate((16, 32, 64), 1):
        block = f"layer{stage}.0"
        convolution(f"{block}.conv1", inputs, width, 3)
        norm(f"{block}.bn1", width)
        convolution(f"{block}.conv2", width, width, 3)
        norm(f"{block}.bn2", width)
        if inputs != width:
            convolution(f"{block}.downsample.0", inputs, width, 1)
            norm(f"{block}.downsample.1", width)
        inputs = width
    tensors["fc.weight"] = 0.1 * rng.normal(size=(3, 64))
    tensors["fc.bias"] = np.zeros(3)
    save_file({name: tensor.astype(np.float32) for name, tensor in tensors.items()}, file)


if __name__ == "__main__":
    main(sys.argv[1])
