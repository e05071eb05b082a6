# ruff: noqa: INP001 - Triton wants a plain folder
"""ONNX Runtime as a python-based Triton backend.

It has the name and reads the options of NVIDIA's C++ backend, so a repository
with ``backend: "onnxruntime"`` is served by this one where there is no other.
Runs inside Triton's stub: it may import nothing of radserve.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
_LEVELS = {
    -1: ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    1: ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}


class ConfigError(ValueError):
    """The model's configuration contradicts its graph, or asks for what is not there."""


class TritonPythonModel:
    """One instance of one model; Triton calls its methods."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the graph and compare it with the configuration.

        Args:
            args: As Triton gives them: ``model_config`` (JSON), ``model_repository``
                (the model's folder), ``model_version``, ``model_instance_kind``.

        Raises:
            ConfigError: They do not fit; Triton reports it as the reason.
        """
        config = json.loads(args["model_config"])
        self._batched = config.get("max_batch_size", 0) > 0
        self._input_types = {entry["name"]: entry["data_type"] for entry in config.get("input", [])}
        self._outputs = [entry["name"] for entry in config.get("output", [])]
        folder = Path(args["model_repository"], args["model_version"])
        path = _graph_file(folder, config.get("default_model_filename") or "model.onnx")
        providers = ["CPUExecutionProvider"]
        if args.get("model_instance_kind") == "GPU" and "CUDAExecutionProvider" in ort.get_available_providers():
            providers.insert(0, "CUDAExecutionProvider")
        # ONNX Runtime itself refuses external data outside the graph's folder, links included.
        self._session = ort.InferenceSession(str(path), _session_options(config), providers=providers)
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
        if len(requests) == 1:
            return [self._answer_one(requests[0])]
        responses: list[Any] = [None] * len(requests)
        groups: dict[object, list[tuple[int, Tensors]]] = {}
        for index, request in enumerate(requests):
            if request.is_cancelled():
                responses[index] = _failure("the request was cancelled", pb_utils.TritonError.CANCELLED)
                continue
            try:
                feeds = self._feeds(request)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with this one, it is this one's
                responses[index] = _failure(error)
                continue
            # Without a batch axis there is nothing to concatenate along.
            key: object = tuple(array.shape[1:] for array in feeds.values()) if self._batched else index
            groups.setdefault(key, []).append((index, feeds))
        for group in groups.values():
            members = [requests[index] for index, _ in group]
            answers = self._answer_group(members, [feeds for _, feeds in group])
            for (index, _), response in zip(group, answers, strict=True):
                responses[index] = response
        return responses

    def _answer_one(self, request: Any) -> Any:  # noqa: ANN401 - Triton's class exists in the stub only
        if request.is_cancelled():
            return _failure("the request was cancelled", pb_utils.TritonError.CANCELLED)
        try:
            return self._run_alone(request, self._feeds(request))
        except Exception as error:  # noqa: BLE001 - an exception here would fail the whole batch
            return _failure(error)

    def _answer_group(self, requests: list[Any], feeds: list[Tensors]) -> list[Any]:
        if len(requests) == 1:
            return [_guarded(lambda: self._run_alone(requests[0], feeds[0]))]
        try:
            return self._run_together(requests, feeds)
        except Exception:  # noqa: BLE001 - one bad item must not take its neighbours: find out which it is
            return [
                _guarded(lambda request=request, own=own: self._run_alone(request, own))  # type: ignore[misc]
                for request, own in zip(requests, feeds, strict=True)
            ]

    def _run_alone(self, request: Any, feeds: Tensors) -> Any:  # noqa: ANN401
        names = self._requested([request])
        values = dict(zip(names, self._session.run(names, feeds), strict=True))
        return _response(values)

    def _run_together(self, requests: list[Any], feeds: list[Tensors]) -> list[Any]:
        batch = {name: np.concatenate([one[name] for one in feeds]) for name in feeds[0]}
        sizes = [len(next(iter(one.values()))) for one in feeds]
        names = self._requested(requests)
        values = dict(zip(names, self._session.run(names, batch), strict=True))
        for name, value in values.items():
            if len(value) != sum(sizes):
                msg = f"output {name} has {len(value)} rows for {sum(sizes)} of input"
                raise ConfigError(msg)
        responses, start = [], 0
        for size in sizes:
            responses.append(_response({name: value[start : start + size] for name, value in values.items()}))
            start += size
        return responses

    def _requested(self, requests: list[Any]) -> list[str]:
        wanted = {name for request in requests for name in request.requested_output_names()}
        return [name for name in self._outputs if name in wanted]

    def _feeds(self, request: Any) -> Tensors:  # noqa: ANN401
        feeds = {}
        for tensor in request.inputs():
            array = tensor.as_numpy()
            if self._input_types[tensor.name()] == "TYPE_STRING":
                array = _decoded(tensor.name(), array)
            feeds[tensor.name()] = array
        # A fixed order makes the shapes of two requests comparable.
        return {name: feeds[name] for name in self._input_types if name in feeds}


def _graph_file(folder: Path, filename: str) -> Path:
    path = folder / filename
    if not path.resolve().is_relative_to(folder.resolve()):
        msg = f"default_model_filename {filename} leaves the version folder"
        raise ConfigError(msg)
    if not path.is_file():
        msg = f"{path.name} is missing in version folder {folder.name}"
        raise ConfigError(msg)
    return path


def _session_options(config: dict[str, Any]) -> ort.SessionOptions:
    """NVIDIA's names; ``session.*`` entries go to ONNX Runtime as they are."""
    given = {name: entry["string_value"] for name, entry in config.get("parameters", {}).items()}
    options = ort.SessionOptions()
    options.intra_op_num_threads = _integer(given, "intra_op_thread_count", 0)
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


def _response(values: Tensors) -> Any:  # noqa: ANN401
    # The stub drops those that this request did not ask for.
    tensors = [pb_utils.Tensor(name, value) for name, value in values.items()]
    return pb_utils.InferenceResponse(output_tensors=tensors)


def _guarded(run: Callable[[], Any]) -> Any:  # noqa: ANN401
    try:
        return run()
    except Exception as error:  # noqa: BLE001 - an exception here would fail the whole batch
        return _failure(error)


def _failure(error: Exception | str, code: int | None = None) -> Any:  # noqa: ANN401
    if code is None:
        # ONNX Runtime's InvalidArgument is about the input's shape or type; all else is the model's.
        invalid = isinstance(error, ValueError) or type(error).__name__ == "InvalidArgument"
        code = pb_utils.TritonError.INVALID_ARG if invalid else pb_utils.TritonError.INTERNAL
    message = " ".join(str(error).split())
    return pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(message, code))
