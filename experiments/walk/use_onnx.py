"""Runs an exported model.onnx in ONNX Runtime beside its reference.npz."""

import numpy as np
import onnxruntime

reference = np.load("reference.npz")
session = onnxruntime.InferenceSession("model.onnx")
(inputs,) = session.get_inputs()
(probabilities,) = session.run(None, {inputs.name: reference["images"]})
difference = np.abs(probabilities - reference["probabilities"]).max()
print(f"onnxruntime: {probabilities.shape}, difference from the trained network {difference:.1e}")
assert difference < 1e-5
