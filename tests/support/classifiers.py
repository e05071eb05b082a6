"""Served classifiers whose answers are easy to foresee, for tests of the SDK."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from support.repositories import write_config

from radserve.contracts import (
    CONTRACT_PARAMETER,
    Code,
    Contract,
    FixedWindow,
    ImageInput,
    Label,
    Policy,
    Task,
    TextInput,
    dump_contract,
    wire_tensors,
)

if TYPE_CHECKING:
    from pathlib import Path

_IMAGE = ImageInput(
    modalities=("CT",), rows=8, columns=8, window=FixedWindow(center=40.0, width=400.0), absent_attributes=Policy.ACCEPT
)
_TEXT = TextInput(languages=("en", "zh"), max_tokens=8, max_bytes=1024)

# The probability of "bright" is the mean of the pixels; a report is urgent if it says so.
_STEP = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        given = request.inputs()[0].as_numpy()
        outputs = []
        if given.dtype == object:
            texts = [row[0].decode() for row in given]
            p = np.array([[0.9 if "urgent" in text else 0.1] for text in texts], np.float32)
            counts = np.array([[len(text.split())] for text in texts], np.int32)
            outputs.append(pb_utils.Tensor("TOKEN_COUNT", counts))
        else:
            bright = given.reshape(len(given), -1).mean(axis=1, keepdims=True) / 255
            p = np.concatenate([1 - bright, bright], axis=1).astype(np.float32)
        outputs.append(pb_utils.Tensor("PROBABILITIES", p))
        outputs.append(pb_utils.Tensor("DECISIONS", np.where(p >= 0.5, 2, 0).astype(np.int8)))
        return pb_utils.InferenceResponse(outputs)
"""


def _label(name: str) -> Label:
    return Label(name=name, code=Code(value=name.upper(), scheme="99TEST", meaning=name))


def image_contract(version: int = 1) -> Contract:
    """8 x 8 pixels of CT at 40/400; dark or bright."""
    return _contract("brightness", Task.IMAGE_CLASSIFICATION, _IMAGE, ("dark", "bright"), version)


def text_contract(version: int = 1) -> Contract:
    """A report of at most 8 words; urgent or not."""
    return _contract("triage", Task.TEXT_CLASSIFICATION, _TEXT, ("urgent",), version)


def _contract(
    name: str, task: Task, described: ImageInput | TextInput, labels: tuple[str, ...], version: int
) -> Contract:
    inputs, outputs = wire_tensors(task, described, len(labels))
    return Contract(
        name=name,
        version=version,
        task=task,
        description=f"{name} of nothing",
        intended_use="For tests only",
        input=described,
        inputs=inputs,
        outputs=outputs,
        max_batch_size=8,
        labels=tuple(_label(label) for label in labels),
        model_sha256="0" * 64,
        exporter_version="0",
    )


def write_classifier(repository: Path, contract: Contract) -> None:
    """Write a public classifier whose one step is a Python model; no manifest."""
    step = repository / f"{contract.name}_step"
    kinds = {"BYTES": "STRING"}
    inputs = [(one.name, kinds.get(one.dtype.value, one.dtype.value), one.dims) for one in contract.inputs]
    outputs = [(one.name, one.dtype.value, one.dims) for one in contract.outputs]
    write_config(step, inputs, outputs, backend="python")
    (step / "1").mkdir(exist_ok=True)
    (step / "1" / "model.py").write_text(_STEP)
    maps = "".join(f'input_map {{ key: "{one[0]}" value: "{one[0]}" }} ' for one in inputs)
    maps += "".join(f'output_map {{ key: "{one[0]}" value: "{one[0]}" }} ' for one in outputs)
    public = repository / contract.name
    write_config(public, inputs, outputs)
    sides = "".join(line + "\n" for line in (public / "config.pbtxt").read_text().splitlines() if "put [" in line)
    (public / "config.pbtxt").write_text(
        f'name: "{contract.name}"\nplatform: "ensemble"\nmax_batch_size: 8\n{sides}'
        f'ensemble_scheduling {{ step [ {{ model_name: "{step.name}" model_version: 1 {maps}}} ] }}\n'
    )
    set_contract(repository, contract)


def set_contract(repository: Path, contract: Contract) -> None:
    """Publish a contract, and with it a version, over what the public model's folder holds."""
    public = repository / contract.name
    config = public / "config.pbtxt"
    kept = [line for line in config.read_text().splitlines() if CONTRACT_PARAMETER not in line]
    escaped = dump_contract(contract).replace("\\", "\\\\").replace('"', '\\"')
    kept.append(f'parameters {{ key: "{CONTRACT_PARAMETER}" value: {{ string_value: "{escaped}" }} }}')
    config.write_text("\n".join(kept) + "\n")
    for folder in public.iterdir():
        if folder.is_dir() and folder.name != str(contract.version):
            shutil.rmtree(folder)
    (public / str(contract.version)).mkdir(exist_ok=True)
    (public / str(contract.version) / "placeholder").touch()
