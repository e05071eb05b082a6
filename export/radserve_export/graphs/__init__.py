"""ONNX graphs of a served model, built, joined and checked without TensorFlow."""

from __future__ import annotations

NETWORK_INPUT = "NETWORK_INPUT"
NETWORK_OUTPUT = "NETWORK_OUTPUT"
GENERATED_IDS = "GENERATED_IDS"
TOKEN_IDS = "TOKEN_IDS"  # noqa: S105 - ids of a report's tokens; no secret

# Triton's containers of 2026 load opset 21 and IR version 10; these are well below.
OPSET = 18
IR_VERSION = 8
BATCH = "batch"
