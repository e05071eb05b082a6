"""From trained Keras models to a Triton model repository."""

import os

# ONNX Runtime would otherwise write a device id to the home folder, and may send it, as soon as it is imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
