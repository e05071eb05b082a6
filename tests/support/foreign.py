"""A model repository as other makers write theirs: every backend, every style of text format, nothing wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from support.repositories import write_onnx

if TYPE_CHECKING:
    from pathlib import Path

_PREPARE = """import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [pb_utils.InferenceResponse([]) for _ in requests]
"""

CONFIGS = {
    "prepare": """backend: "python"   # resizes
max_batch_size: 16
input [ { name: "RAW" data_type: TYPE_UINT8 dims: [ -1, -1, 3 ] } ]
input [ { name: "HINT" data_type: TYPE_FP32 dims: [ 1 ] optional: true } ]
output [ { name: "PIXELS", data_type: TYPE_FP32, dims: [ 2, 2 ] } ]
dynamic_batching { priority_levels: 2, default_priority_level: 2 }
parameters: { key: "EXECUTION_ENV_PATH", value: { string_value: "env.tar.gz" } }
""",
    "classify": """name: "classify"
platform: "onnxruntime_onnx"
max_batch_size: 8
input: [
  {
    name: "X"
    data_type: TYPE_FP32
    format: FORMAT_NONE
    dims: [ 2, 2 ]
    reshape: { shape: [ 4 ] }
  }
]
output: [
  <
    name: 'Y';
    data_type: TYPE_FP32;
    dims: [ 4 ];
    label_filename: "names"
                    ".txt";
  >
]
instance_group [
  { count: 2 kind: KIND_GPU gpus: [ 0, 1 ] },
  { count: 1 kind: KIND_CPU }
]
dynamic_batching: {
  preferred_batch_size: [ 4, 8 ]
  max_queue_delay_microseconds: 100
  priority_levels: 2
  default_priority_level: 1
  default_queue_policy {
    timeout_action: REJECT
    default_timeout_microseconds: 1000
    allow_timeout_override: true
  }
  priority_queue_policy { key: 2 value: { timeout_action: DELAY default_timeout_microseconds: 500 } }
}
model_warmup [
  {
    name: "noise"
    batch_size: 8
    inputs {
      key: "X"
      value: { data_type: TYPE_FP32 dims: [ 2, 2 ] random_data: true }
    }
  }
]
version_policy: { latest { num_versions: 2 } }
optimization {
  graph { level: 1 }
  execution_accelerators {
    gpu_execution_accelerator : [
      {
        name : "tensorrt"
        parameters { key: "precision_mode" value: "FP16" }
        parameters { key: "trt_profile_min_shapes" value: "X:1x2x2" }
        parameters { key: "trt_profile_opt_shapes" value: "X:4x2x2" }
        parameters { key: "trt_profile_max_shapes" value: "X:8x2x2" }
      }
    ]
  }
}
""",
    "chain": """platform: "ensemble"
max_batch_size: 8
input [ { name: "IMAGE" data_type: TYPE_UINT8 dims: [ -1, -1, 3 ] } ]
output [ { name: "SCORES" data_type: TYPE_FP32 dims: [ -1 ] } ]
ensemble_scheduling {
  step [
    {
      model_name: "classify"
      model_version: -1
      input_map { key: "X" value: "pixels" }
      output_map { key: "Y" value: "SCORES" }
    },
    {
      model_name: "prepare"
      model_version: 1
      input_map { key: "RAW" value: "IMAGE" }
      output_map { key: "PIXELS" value: "pixels" }
    }
  ]
}
""",
    "whole": """platform: "ensemble"
input [ { name: "IN" data_type: TYPE_FP32 dims: [ -1, 2, 2 ] } ]
output [ { name: "OUT" data_type: TYPE_FP32 dims: [ -1, 4 ] } ]
ensemble_scheduling { step { model_name: "classify" model_version: -1
  input_map { key: "X" value: "IN" } output_map { key: "Y" value: "OUT" } } }
""",
    "bare": "max_batch_size: 4\n",
    "plan": """platform: "tensorrt_plan"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP16 dims: 3 dims: 224 dims: 224 }
output { name: "y" data_type: TYPE_FP16 dims: 10 }
version_policy { all { } }
""",
    "torch": """backend: "pytorch"
input [ { name: "INPUT__0" data_type: TYPE_INT64 dims: [ -1, -1 ] } ]
output [ { name: "OUTPUT__0" data_type: TYPE_FP32 dims: [ -1 ] } ]
parameters { key: "INFERENCE_MODE" value { string_value: "true" } }
""",
    "saved": """platform: "tensorflow_savedmodel"
max_batch_size: 1
default_model_filename: "export.savedmodel"
""",
    "vino": 'backend: "openvino"\nmax_batch_size: 2\n',
    "custom": """backend: "our_own"
max_batch_size: 0
input [ { name: "I" data_type: TYPE_STRING dims: [ 1 ] reshape { shape: [ ] } } ]
output [ { name: "O" data_type: TYPE_BF16 dims: [ 2 ] } ]
instance_group [ { kind: KIND_MODEL } ]
sequence_batching { max_sequence_idle_microseconds: 5000000 }
model_transaction_policy { decoupled: true }
response_cache { enable: true }
""",
    "words": """platform: "onnxruntime_onnx"
max_batch_size: 4
input [
  { name: "IDS" data_type: TYPE_INT32 dims: [ 3 ] },
  { name: "LEVELS" data_type: TYPE_UINT8 dims: [ 3 ] }
]
output [ { name: "VECTORS" data_type: TYPE_FP32 dims: [ 3, 2 ] } ]
model_warmup {
  name: "words"
  batch_size: 4
  inputs {
    key: "IDS"
    value { data_type: TYPE_INT32 dims: [ 3 ] zero_data: true }
  }
  inputs { key: "LEVELS" value { data_type: TYPE_UINT8 dims: [ 3 ] random_data: true } }
}
""",
}


def write_foreign(repository: Path) -> None:
    """Write it: models all of which Triton would take."""
    for name, text in CONFIGS.items():
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "config.pbtxt").write_text(text)
    files = {
        "prepare/1/model.py": _PREPARE,
        "prepare/1/helper.py": "",
        "classify/names.txt": "a\nb\nc\nd\n",
        "plan/1/model.plan": "plan",
        "plan/2/model.plan": "plan",
        "plan/configs/large.pbtxt": "",
        "torch/1/model.pt": "torch",
        "saved/1/export.savedmodel/saved_model.pb": "saved",
        "vino/1/model.xml": "<net/>",
        "vino/1/model.bin": "",
        "custom/libtriton_our_own.so": "",
        "README.md": "",
    }
    for name, content in files.items():
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text(content)
    weight = numpy_helper.from_array(np.eye(4, dtype=np.float32), "W")
    double = [helper.make_node("MatMul", ["X", "W"], ["Y"]), helper.make_node("Relu", ["Y"], ["UNUSED"])]
    for name in ("classify/1", "classify/2", "bare/1"):
        write_onnx(
            repository / name / "model.onnx",
            double,
            [("X", "FP32", (4,))],
            [("Y", "FP32", (4,)), ("UNUSED", "FP32", (4,))],
            [weight],
        )
    tables = {"words": (10, 2), "levels": (256, 2)}  # random bytes are all levels, but random numbers no words
    nodes = [
        helper.make_node("Cast", ["IDS"], ["ids"], to=TensorProto.INT64),
        helper.make_node("Gather", ["words", "ids"], ["of_words"]),
        helper.make_node("Cast", ["LEVELS"], ["places"], to=TensorProto.INT32),
        helper.make_node("Gather", ["levels", "places"], ["of_levels"]),
        helper.make_node("Add", ["of_words", "of_levels"], ["VECTORS"]),
    ]
    write_onnx(
        repository / "words/1/model.onnx",
        nodes,
        [("IDS", "INT32", (3,)), ("LEVELS", "UINT8", (3,))],
        [("VECTORS", "FP32", (3, 2))],
        [numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in tables.items()],
    )
