"""A trained network in files that need no afd_jax: safetensors, StableHLO, ONNX."""
