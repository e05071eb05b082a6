"""What every peer serves: one graph, behind ONNX Runtime with the same options. Runs in the peers' environments.

The graph's file is named by the environment variable PEER_GRAPH. Over plain HTTP a request is the pixels of
its rows, one after the other, and its answer all outputs, one after the other, as they lie in memory.
"""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
import onnxruntime as ort

GRAPH = os.environ["PEER_GRAPH"]


class Network:
    """One session of one thread."""

    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(GRAPH, options, providers=["CPUExecutionProvider"])
        (only,) = self._session.get_inputs()
        self.input = only.name
        self.shape = [int(size) for size in only.shape[1:]]
        self.row_bytes = math.prod(self.shape)
        self.outputs = [(entry.name, entry.type, entry.shape[1:]) for entry in self._session.get_outputs()]

    def rows(self, raw: bytes) -> Any:
        """The request's pixels as an array (N, rows, columns, channels) of uint8."""
        return np.frombuffer(raw, np.uint8).reshape(-1, *self.shape)

    def run(self, pixels: Any) -> list[Any]:
        """All outputs of a batch."""
        values: list[Any] = self._session.run(None, {self.input: pixels})
        return values

    def answer(self, raw: bytes) -> bytes:
        """A request's answer."""
        return b"".join([value.tobytes() for value in self.run(self.rows(raw))])
