# ruff: noqa: INP001 - Triton wants a plain folder
"""ONNX Runtime as a python-based Triton backend.

It has the name and reads the options of NVIDIA's C++ backend, so a repository
with ``backend: "onnxruntime"`` is served by this one where there is no other.
Runs inside Triton's stub: it may import nothing of radserve.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    Tensors = dict[str, NDArray[Any]]

_ONNX_TYPES = {
    "TYPE_BOOL": "tensor(bool)",
    "TYPE_UINT8": "tensor(uint8)",
    "TYPE_UINT16": "tensor(uint16)",
    "TYPE_UINT32": "tensor(uint32)",
    "TYPE_UINT64": "tensor(uint64)",
    "TYPE_INT8": "tensor(int8)",
    "TYPE_INT16": "tensor(int16)",
    "TYPE_INT32": "tensor(int32)",
    "TYPE_INT64": "tensor(int64)",
    "TYPE_FP16": "tensor(float16)",
    "TYPE_FP32": "tensor(float)",
    "TYPE_FP64": "tensor(double)",
    "TYPE_STRING": "tensor(string)",
}
_CUDA = "CUDAExecutionProvider"
# Whether a request was cancelled, the server must be asked, a trip of tens of microseconds for each request:
# more than a small model's run. In its queue the server itself drops the cancelled ones.
_WORTH_ASKING_S = 0.01
# Rows of several requests that a CPU takes in one run, for each of its threads. More are no faster each, and what the
# layers of a larger run hand each other leaves the core's cache as soon as others use it, too.
_ROWS = 16
# What the embedded server says of this machine: its cores, and the threads of each instance if they are asked for.
_CORES, _THREADS = "RADSERVE_CORES", "RADSERVE_THREADS"
_LEVELS = {
    -1: ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    1: ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}


class ConfigError(ValueError):
    """The model's configuration contradicts its graph, or asks for what is not there."""


class TritonPythonModel:
    """One instance of one model; Triton calls its methods."""

    # Whether the last run was slow: see _WORTH_ASKING_S.
    _asks = True
    # Rows of several requests in one run.
    _most: float = math.inf

    def __init__(self) -> None:
        """Memory for batches: none yet."""
        self._rooms: dict[str, NDArray[np.uint8]] = {}

    def initialize(self, args: dict[str, str]) -> None:
        """Load the graph and compare it with the configuration.

        Args:
            args: As Triton gives them: ``model_config`` (JSON), ``model_repository``
                (the model's folder), ``model_version``, ``model_instance_kind``,
                ``model_instance_device_id``.

        Raises:
            ConfigError: They do not fit; Triton reports it as the reason.
        """
        config = json.loads(args["model_config"])
        self._batched = config.get("max_batch_size", 0) > 0
        self._input_types = {entry["name"]: entry["data_type"] for entry in config.get("input", [])}
        self._outputs = [entry["name"] for entry in config.get("output", [])]
        folder = Path(args["model_repository"], args["model_version"])
        path = _graph_file(folder, config.get("default_model_filename") or "model.onnx")
        # ONNX Runtime itself refuses external data outside the graph's folder, links included.
        options = _session_options(config)
        cuda = _cuda_options(config, args)
        if cuda is None:
            self._most = _ROWS * (options.intra_op_num_threads or os.cpu_count() or 1)
        self._session = _session(path, options, cuda)
        count = _instances(config)
        pb_utils.Logger.log_info(
            f"{config.get('name')}: {count} instances, intra_op_num_threads {options.intra_op_num_threads} each"
        )
        _check_tensors("input", config.get("input", []), self._session.get_inputs(), batched=self._batched)
        _check_tensors("output", config.get("output", []), self._session.get_outputs(), batched=self._batched)
        if unset := {entry.name for entry in self._session.get_inputs()} - set(self._input_types):
            msg = f"the graph needs inputs that the configuration lacks: {', '.join(sorted(unset))}"
            raise ConfigError(msg)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer a batch of requests; one that fails does not harm the others.

        Args:
            requests: As Triton batched them.

        Returns:
            One response per request, in their order.
        """
        responses: list[Any] = [None] * len(requests)
        groups: dict[object, list[tuple[int, Any, Tensors]]] = {}
        for index, request in enumerate(requests):
            if self._asks and request.is_cancelled():
                responses[index] = _failure("the request was cancelled", pb_utils.TritonError.CANCELLED)
                continue
            try:
                feeds = self._feeds(request)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with this one, it is this one's
                responses[index] = _failure(error)
                continue
            # Without a batch axis there is nothing to concatenate along.
            key: object = tuple([array.shape[1:] for array in feeds.values()]) if self._batched else index
            groups.setdefault(key, []).append((index, request, feeds))
        for group in groups.values():
            for part in _parts(group, self._most):
                indices, members, feeds_of = zip(*part, strict=True)
                for index, response in zip(indices, self._answers(members, feeds_of), strict=True):
                    responses[index] = response
        return responses

    def _answers(self, requests: Sequence[Any], feeds: Sequence[Tensors]) -> list[Any]:
        if len(requests) > 1:
            # If it fails, one bad item must not take its neighbours: each alone tells which it is.
            with contextlib.suppress(Exception):
                return self._run_together(requests, feeds)
        return [self._run_alone(request, own) for request, own in zip(requests, feeds, strict=True)]

    def _run_alone(self, request: Any, feeds: Tensors) -> Any:  # noqa: ANN401 - Triton's class exists in the stub only
        try:
            names = self._requested([request])
            return _response(names, self._run(names, feeds))
        except Exception as error:  # noqa: BLE001 - an exception here would fail the whole batch
            return _failure(error)

    def _run_together(self, requests: Sequence[Any], feeds: Sequence[Tensors]) -> list[Any]:
        batch = {name: self._joined(name, [one[name] for one in feeds]) for name in feeds[0]}
        ends = list(accumulate(len(next(iter(one.values()))) for one in feeds))
        names = self._requested(requests)
        values = self._run(names, batch)
        for name, value in zip(names, values, strict=True):
            if len(value) != ends[-1]:
                msg = f"output {name} has {len(value)} rows for {ends[-1]} of input"
                raise ConfigError(msg)
        # Views of the outputs: the stub copies each into shared memory before it asks for the next batch.
        return [
            _response(names, [value[start:end] for value in values])
            for start, end in zip([0, *ends], ends, strict=False)
        ]

    def _run(self, names: list[str], feeds: Tensors) -> list[NDArray[Any]]:
        began = time.perf_counter()
        values: list[NDArray[Any]] = self._session.run(names, feeds)
        self._asks = time.perf_counter() - began > _WORTH_ASKING_S
        return values

    def _joined(self, name: str, arrays: list[NDArray[Any]]) -> NDArray[Any]:
        """All rows in one array, in memory that every batch uses again."""
        first = arrays[0]
        if first.dtype.hasobject:
            return np.concatenate(arrays)
        shape = (sum(map(len, arrays)), *first.shape[1:])
        size = math.prod(shape) * first.itemsize
        room = self._rooms.get(name)
        if room is None or room.nbytes < size:
            room = self._rooms[name] = np.empty(size, np.uint8)
        return np.concatenate(arrays, out=room[:size].view(first.dtype).reshape(shape))

    def _requested(self, requests: Sequence[Any]) -> list[str]:
        wanted = set(requests[0].requested_output_names()).union(
            *[request.requested_output_names() for request in requests[1:]]
        )
        return [name for name in self._outputs if name in wanted]

    def _feeds(self, request: Any) -> Tensors:  # noqa: ANN401
        feeds = {}
        for tensor in request.inputs():
            name, array = tensor.name(), tensor.as_numpy()
            feeds[name] = _decoded(name, array) if self._input_types[name] == "TYPE_STRING" else array
        # A fixed order makes the shapes of two requests comparable.
        return feeds if len(feeds) == 1 else {name: feeds[name] for name in self._input_types if name in feeds}


def _parts(group: list[tuple[int, Any, Tensors]], most: float) -> Iterator[list[tuple[int, Any, Tensors]]]:
    """Requests in their order, as many together as have ``most`` rows; one that has more is by itself."""
    part: list[tuple[int, Any, Tensors]] = []
    rows = 0
    for member in group if len(group) > 1 else ():
        more = len(next(iter(member[2].values())))
        if part and rows + more > most:
            yield part
            part, rows = [], 0
        part.append(member)
        rows += more
    yield part or group


def _graph_file(folder: Path, filename: str) -> Path:
    path = folder / filename
    if not path.resolve().is_relative_to(folder.resolve()):
        msg = f"default_model_filename {filename} leaves the version folder"
        raise ConfigError(msg)
    if not path.is_file():
        msg = f"{path.name} is missing in version folder {folder.name}"
        raise ConfigError(msg)
    return path


def _cuda_options(config: dict[str, Any], args: dict[str, str]) -> dict[str, str] | None:
    """Options of CUDA as NVIDIA's backend reads them; None where this instance or this ONNX Runtime has none."""
    if args.get("model_instance_kind") != "GPU" or _CUDA not in ort.get_available_providers():
        return None
    options = {"device_id": args["model_instance_device_id"]}
    accelerators = config.get("optimization", {}).get("execution_accelerators", {})
    for one in accelerators.get("gpu_execution_accelerator", []):
        if one["name"] == "cuda":
            options |= one.get("parameters", {})
    return options


def _session(path: Path, options: ort.SessionOptions, cuda: dict[str, str] | None) -> ort.InferenceSession:
    if cuda is None:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    ort.preload_dlls()  # NVIDIA's wheels are not where the dynamic loader looks
    session = ort.InferenceSession(str(path), options, providers=[(_CUDA, cuda), "CPUExecutionProvider"])
    # ONNX Runtime writes why to the log, and goes on without.
    if _CUDA not in session.get_providers():
        msg = (
            f"ONNX Runtime cannot use GPU {cuda['device_id']} (the log says why): pip install"
            " 'onnxruntime-gpu[cuda,cudnn]', or let instances be of kind cpu"
        )
        raise ConfigError(msg)
    return session


def _session_options(config: dict[str, Any]) -> ort.SessionOptions:
    """NVIDIA's names; ``session.*`` entries go to ONNX Runtime as they are."""
    given = {name: entry["string_value"] for name, entry in config.get("parameters", {}).items()}
    options = ort.SessionOptions()
    options.intra_op_num_threads = _threads(config, given)
    options.inter_op_num_threads = _integer(given, "inter_op_thread_count", 0)
    if _integer(given, "execution_mode", 0) == 1:
        options.execution_mode = ort.ExecutionMode.ORT_PARALLEL
    options.enable_cpu_mem_arena = _integer(given, "enable_mem_arena", 1) == 1
    options.enable_mem_pattern = _integer(given, "enable_mem_pattern", 1) == 1
    level = int(config.get("optimization", {}).get("graph", {}).get("level", 0))
    options.graph_optimization_level = _LEVELS.get(level, ort.GraphOptimizationLevel.ORT_ENABLE_ALL)
    # Several sessions share the cores: threads that spin while idle take them from the others.
    entries = {"session.intra_op.allow_spinning": "0", "session.inter_op.allow_spinning": "0"}
    entries |= {name: value for name, value in given.items() if name.startswith("session.")}
    for name, value in entries.items():
        options.add_session_config_entry(name, value)
    return options


def _threads(config: dict[str, Any], given: dict[str, str]) -> int:
    """Intra-op threads of this instance.

    A configuration of 1, which the exporter writes where nothing else is asked
    for, or of none says nothing about this machine: there an instance gets its
    share of the cores.
    """
    configured = _integer(given, "intra_op_thread_count", 0)
    asked, cores = (int(os.environ.get(name) or 0) for name in (_THREADS, _CORES))
    if asked:
        return asked
    return configured if configured > 1 or not cores else max(1, cores // _instances(config))


def _instances(config: dict[str, Any]) -> int:
    return max(1, sum(int(group.get("count", 1)) for group in config.get("instance_group", [])))


def _integer(given: dict[str, str], name: str, default: int) -> int:
    value = given.get(name, str(default))
    try:
        return int(value)
    except ValueError as error:
        msg = f"parameter {name} is {value!r}, not a whole number"
        raise ConfigError(msg) from error


def _check_tensors(side: str, configured: list[dict[str, Any]], graph: Sequence[Any], *, batched: bool) -> None:
    in_graph = {entry.name: entry for entry in graph}
    for entry in configured:
        name = entry["name"]
        if name not in in_graph:
            msg = f"{side} {name} is not in the graph, which has {', '.join(sorted(in_graph))}"
            raise ConfigError(msg)
        if entry.get("reshape"):
            msg = f"{side} {name} has a reshape, which this backend does not do"
            raise ConfigError(msg)
        want, have = _ONNX_TYPES.get(entry["data_type"]), in_graph[name].type
        if want != have:
            msg = f"{side} {name} is {entry['data_type']} in the configuration and {have} in the graph"
            raise ConfigError(msg)
        dims = [int(dim) for dim in entry["dims"]]
        full = [-1, *dims] if batched else dims
        shape = [dim if isinstance(dim, int) and dim >= 0 else -1 for dim in in_graph[name].shape]
        if batched and shape and shape[0] != -1:
            msg = f"{side} {name} has a fixed first axis in the graph: max_batch_size must be 0"
            raise ConfigError(msg)
        if len(shape) != len(full) or any(
            want != have and -1 not in (want, have) for want, have in zip(full, shape, strict=True)
        ):
            msg = f"{side} {name} has shape {full} in the configuration and {shape} in the graph"
            raise ConfigError(msg)


def _decoded(name: str, array: NDArray[np.object_]) -> NDArray[np.object_]:
    """Text as ONNX Runtime wants it; Triton gives its UTF-8 bytes."""
    try:
        texts = [item.decode("utf-8") if isinstance(item, bytes) else item for item in array.ravel()]
    except UnicodeDecodeError as error:
        msg = f"input {name} is not UTF-8"
        raise ValueError(msg) from error
    decoded = np.empty(array.size, dtype=object)
    decoded[:] = texts
    return decoded.reshape(array.shape)


def _response(names: Sequence[str], values: Sequence[NDArray[Any]]) -> Any:  # noqa: ANN401
    # The stub drops those that this request did not ask for.
    return pb_utils.InferenceResponse([pb_utils.Tensor(*named) for named in zip(names, values, strict=True)])


def _failure(error: Exception | str, code: int | None = None) -> Any:  # noqa: ANN401
    if code is None:
        # ONNX Runtime's InvalidArgument is about the input's shape or type; all else is the model's.
        invalid = isinstance(error, ValueError) or type(error).__name__ == "InvalidArgument"
        code = pb_utils.TritonError.INVALID_ARG if invalid else pb_utils.TritonError.INTERNAL
    message = " ".join(str(error).split())
    return pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(message, code))
