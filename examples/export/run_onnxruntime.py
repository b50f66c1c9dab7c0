"""Run a policy of pcm-export with ONNX Runtime alone: python run_onnxruntime.py policy.onnx (see docs/export.md)."""

import json
import sys
import time

import numpy as np
import onnxruntime

CALLS = 100

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options)
about = json.loads(session.get_modelmeta().custom_metadata_map["pcm_policy"])
print(
    f"{about['task']['name']} at {about['task']['rate']:g} Hz, {about['depth']} network evaluations in sequence"
)
for value in session.get_inputs():
    print(f"  {value.name} {value.shape}")

rng = np.random.default_rng(0)
# A robot puts its newest observations here, oldest first. Their numbers and units are in about["inputs"][0].
inputs = {"observations": np.full((1, *about["inputs"][0]["shape"]), 250, np.float32)}
seconds = []
for _ in range(CALLS):
    for tensor in about["inputs"][1:]:  # noise, drawn anew for each chunk
        inputs[tensor["name"]] = rng.standard_normal((1, *tensor["shape"]), np.float32)
    started = time.perf_counter()
    chunk, _, residual = session.run(["chunk", "actions", "residual"], inputs)
    seconds.append(time.perf_counter() - started)
print(f"chunk {chunk.shape}, first command {chunk[0, 0].round(1)} {about['outputs'][0]['units']}")
print(f"{1000 * np.median(seconds):.2f} ms median of {CALLS} calls")
