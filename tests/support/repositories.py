"""Tiny model repositories for tests that need a real server, and no trained model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from onnx import TensorProto, helper

from radserve.contracts import (
    CONTRACT_PARAMETER,
    Contract,
    Datatype,
    Task,
    TensorSpec,
    dump_contract,
)
from radserve.contracts.manifest import MANIFEST, Manifest, hash_file, write_manifest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_TYPES = {
    "FP32": TensorProto.FLOAT,
    "INT32": TensorProto.INT32,
    "UINT8": TensorProto.UINT8,
    "STRING": TensorProto.STRING,
}
Tensor = tuple[str, str, tuple[int, ...]]
"""Name, type as in a configuration without ``TYPE_``, dims without the batch axis."""


def write_onnx(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    initializers: Sequence[onnx.TensorProto] = (),
    *,
    batched: bool = True,
) -> None:
    """Write a checked graph; every free axis gets a name of its own."""

    def described(tensor: Tensor) -> onnx.ValueInfoProto:
        name, kind, dims = tensor
        shape = [f"{name}_{axis}" if dim < 0 else dim for axis, dim in enumerate(dims)]
        return helper.make_tensor_value_info(name, _TYPES[kind], ["batch", *shape] if batched else shape)

    graph = helper.make_graph(
        list(nodes),
        "graph",
        [described(one) for one in inputs],
        [described(one) for one in outputs],
        list(initializers),
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)])
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


def _tensors(side: str, tensors: Sequence[Tensor]) -> str:
    entries = [
        f'{{ name: "{name}" data_type: TYPE_{kind} dims: [ {", ".join(map(str, dims))} ] }}'
        for name, kind, dims in tensors
    ]
    return f"{side} [ {', '.join(entries)} ]\n"


def write_config(
    folder: Path,
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    *,
    backend: str = "onnxruntime",
    max_batch_size: int = 8,
    instances: int = 1,
    delay_us: int = 0,
    extra: str = "",
) -> None:
    """Write a step's ``config.pbtxt``."""
    folder.mkdir(parents=True, exist_ok=True)
    batching = f"dynamic_batching {{ max_queue_delay_microseconds: {delay_us} }}\n" if max_batch_size else ""
    threads = (
        'parameters { key: "intra_op_thread_count" value: { string_value: "1" } }\n' if backend == "onnxruntime" else ""
    )
    (folder / "config.pbtxt").write_text(
        f'name: "{folder.name}"\nbackend: "{backend}"\nmax_batch_size: {max_batch_size}\n'
        + _tensors("input", inputs)
        + _tensors("output", outputs)
        + f"instance_group [ {{ count: {instances} kind: KIND_CPU }} ]\n"
        + batching
        + threads
        + extra
    )


def write_public(
    repository: Path,
    name: str,
    step: str,
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    *,
    max_batch_size: int = 8,
) -> Contract:
    """Write an ensemble of one step, with a contract (``task: tensors``) and a manifest."""

    def specs(tensors: Sequence[Tensor]) -> tuple[TensorSpec, ...]:
        kinds = ((tensor, Datatype("BYTES" if tensor[1] == "STRING" else tensor[1])) for tensor in tensors)
        return tuple(TensorSpec(name=tensor[0], dtype=kind, dims=tensor[2]) for tensor, kind in kinds)

    contract = Contract(
        name=name,
        version=1,
        task=Task.TENSORS,
        inputs=specs(inputs),
        outputs=specs(outputs),
        max_batch_size=max_batch_size,
        model_sha256="0" * 64,
        exporter_version="0",
    )
    folder = repository / name
    (folder / "1").mkdir(parents=True, exist_ok=True)
    (folder / "1" / "placeholder").touch()
    escaped = dump_contract(contract).replace("\\", "\\\\").replace('"', '\\"')
    maps = "".join(f'input_map {{ key: "{one[0]}" value: "{one[0]}" }} ' for one in inputs)
    maps += "".join(f'output_map {{ key: "{one[0]}" value: "{one[0]}" }} ' for one in outputs)
    (folder / "config.pbtxt").write_text(
        f'name: "{name}"\nplatform: "ensemble"\nmax_batch_size: {max_batch_size}\n'
        + _tensors("input", inputs)
        + _tensors("output", outputs)
        + f'ensemble_scheduling {{ step [ {{ model_name: "{step}" model_version: 1 {maps}}} ] }}\n'
        + f'parameters {{ key: "{CONTRACT_PARAMETER}" value: {{ string_value: "{escaped}" }} }}\n'
    )
    files = {
        path.relative_to(repository).as_posix(): hash_file(path)
        for model in (name, step)
        for path in sorted((repository / model).rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    manifest = Manifest(
        name=name, version=1, models=(name, step), files=files, source_sha256="0" * 64, tools={}, parity={}
    )
    write_manifest(manifest, folder / "1" / MANIFEST)
    return contract


ADD_ONE_INPUTS: tuple[Tensor, ...] = (("X", "FP32", (4,)),)
ADD_ONE_OUTPUTS: tuple[Tensor, ...] = (("Y", "FP32", (4,)),)


def write_add_one(repository: Path, name: str = "add_one", *, instances: int = 1) -> Contract:
    """Write a public model ``Y = X + 1`` of four floats, served by one ONNX step."""
    step = repository / f"{name}_pipeline"
    one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    node = helper.make_node("Add", ["X", "one"], ["Y"])
    write_onnx(step / "1" / "model.onnx", [node], ADD_ONE_INPUTS, ADD_ONE_OUTPUTS, [one])
    write_config(step, ADD_ONE_INPUTS, ADD_ONE_OUTPUTS, instances=instances)
    return write_public(repository, name, step.name, ADD_ONE_INPUTS, ADD_ONE_OUTPUTS)


def write_python(
    repository: Path,
    name: str,
    source: str,
    inputs: Sequence[Tensor] = ADD_ONE_INPUTS,
    outputs: Sequence[Tensor] = ADD_ONE_OUTPUTS,
    *,
    extra: str = "",
) -> Contract:
    """Write a public model whose one step is a Python model of the given source."""
    step = repository / f"{name}_step"
    write_config(step, inputs, outputs, backend="python", extra=extra)
    (step / "1").mkdir(exist_ok=True)
    (step / "1" / "model.py").write_text(source)
    return write_public(repository, name, step.name, inputs, outputs)
