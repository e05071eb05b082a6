"""A model behind Triton, on the device, under the load tester's load."""

from __future__ import annotations

import asyncio
import os
import shutil
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import tritonclient.grpc as triton
from google.protobuf import text_format
from support.inference import infer
from tritonclient.grpc import model_config_pb2 as pb

from radserve import Client
from radserve.errors import InputError
from radserve.loadtest import Plan, Scenario, measure, payloads_of, synthetic
from radserve.options import ClientOptions

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from radserve_server import EmbeddedServer

    Tensors = dict[str, NDArray[Any]]

MOST_WORKERS = 8


class Sample(NamedTuple):
    """One measurement: inputs a second, latencies in ms, and how many answers these are of."""

    rate: float
    p50: float | None = None
    p99: float | None = None
    n: int = 0


def graph_of(repository: Path, model: str) -> Path:
    """The newest graph of a model's pipeline.

    Raises:
        InputError: There is none.
    """
    found = sorted(repository.glob(f"{model}_pipeline/*/model.onnx"), key=lambda path: int(path.parent.name))
    if not found:
        msg = f"there is no model {model} in {repository}: run tests/bench/gpu/prepare.py"
        raise InputError(msg)
    return found[-1]


def alone(repository: Path, model: str, folder: Path, *, device: str, instances: int, cuda: Mapping[str, str]) -> Path:
    """Copy a public model and its steps into a repository of its own, its graphs on the device.

    Args:
        repository: Where it is.
        model: Its name.
        folder: The new repository.
        device: cpu or cuda.
        instances: How many of each graph.
        cuda: Options of CUDA, as NVIDIA's backend reads them.
    """
    steps = [step.model_name for step in _config(repository / model).ensemble_scheduling.step]
    for name in (model, *steps):
        shutil.copytree(repository / name, folder / name)
        config = _config(folder / name)
        if config.backend != "onnxruntime":
            continue
        del config.instance_group[:]
        kind = pb.ModelInstanceGroup.KIND_CPU if device == "cpu" else pb.ModelInstanceGroup.KIND_GPU
        config.instance_group.add(kind=kind, count=instances, gpus=[] if device == "cpu" else [0])
        if device != "cpu":
            accelerators = config.optimization.execution_accelerators.gpu_execution_accelerator
            accelerators.add(name="cuda", parameters=dict(cuda))
        (folder / name / "config.pbtxt").write_text(text_format.MessageToString(config), encoding="utf-8")
    return folder


def _config(folder: Path) -> pb.ModelConfig:
    return text_format.Parse((folder / "config.pbtxt").read_text(encoding="utf-8"), pb.ModelConfig())


class Served:
    """A public model of a running server.

    Args:
        server: The server.
        model: The model's name.
    """

    def __init__(self, server: EmbeddedServer, model: str) -> None:
        self._url, self._model = server.grpc_url, model
        with Client(self._url) as client:
            self.contract = client.model(model).contract
        self._rows = synthetic(self.contract, 0)

    def payload(self, batch: int) -> Tensors:
        """The inputs of a request."""
        return payloads_of(self.contract, self._rows, batch)[0]

    def feeds(self, batch: int, names: Collection[str]) -> Tensors:
        """What the graph gets of such a request, its inputs by name: of texts, the tokens that the server makes."""
        given = self.payload(batch)
        if any(array.dtype == object for array in given.values()):
            with triton.InferenceServerClient(self._url) as client:
                given = infer(client, f"{self._model}_tokenize", given)
        return {name: given[name] for name in names}

    def answers(self, batch: int) -> Tensors:
        """The public model's answer."""
        with triton.InferenceServerClient(self._url) as client:
            return infer(client, self._model, self.payload(batch))

    def load(self, batch: int, in_flight: int, seconds: float) -> Sample:
        """Put a closed loop of requests on it.

        Raises:
            InputError: Its figures would not be the server's.
        """
        workers = max(1, min(MOST_WORKERS, in_flight, len(os.sched_getaffinity(0)) // 2))
        plan = Plan.of(
            Scenario.CLOSED_LOOP,
            self.contract,
            concurrency=in_flight,
            inputs_per_request=batch,
            percentile=99.0,
            warm_up_s=min(0.5, seconds),
            duration_s=seconds,
            workers=workers,
        )
        payloads = payloads_of(self.contract, self._rows, batch)
        options = ClientOptions(endpoints=(self._url,))
        run = asyncio.run(measure(plan, self.contract, options, payloads, stop=asyncio.Event()))
        if run.errors:
            msg = f"{self._model}: {run.errors[0].count} requests failed: {run.errors[0].message}"
            raise InputError(msg)
        if not run.windows:
            msg = f"{self._model}: nothing was answered in {seconds:g} s: give more --seconds"
            raise InputError(msg)
        if run.figures is None:  # the load generator was the limit: a lower bound of what the server does
            return Sample(sum(one.inferences for one in run.windows) / sum(one.seconds for one in run.windows))
        latencies = {one.percent: one for one in run.figures.percentiles}
        return Sample(
            run.figures.inferences_per_s.value,
            latencies[50.0].latency_s.value * 1e3,
            latencies[99.0].latency_s.value * 1e3,
            latencies[99.0].n,
        )


def difference(got: Tensors, want: Mapping[str, NDArray[Any]]) -> str:
    """How far answers are from what a reference says: numbers at most, labels by the share that is equal."""
    floats = [
        float(np.abs(got[name].astype(np.float64) - value).max())
        for name, value in want.items()
        if name in got and value.dtype.kind == "f"
    ]
    labels = [
        float((got[name] == value).mean()) for name, value in want.items() if name in got and value.dtype.kind in "iu"
    ]
    told = ([f"{max(floats):.1e}"] if floats else []) + ([f"{min(labels):.2%} of labels equal"] if labels else [])
    return ", ".join(told) or "not compared"
