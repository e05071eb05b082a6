"""How a server is asked: the request's bytes, and what its answer's bytes mean."""

from __future__ import annotations

import http.client
import json
import math
import socket
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import grpc
import numpy as np
import tritonclient.grpc as triton
from bench.peers.closed_loop import METHOD
from bench.peers.environments import PeerError
from tritonclient.grpc import service_pb2
from tritonclient.utils import shared_memory

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bench.peers.graphs import Graph
    from numpy.typing import NDArray

_TYPES = {"float32": "FP32", "int8": "INT8"}
_WAIT_S = 30.0
HOST = "127.0.0.1"


def _head(path: str, size: int, more: str = "") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {size}\r\n{more}\r\n".encode()


def _http(port: int, request: bytes) -> http.client.HTTPResponse:
    with socket.create_connection((HOST, port), _WAIT_S) as connection:
        connection.sendall(request)
        answer = http.client.HTTPResponse(connection, method="POST")
        answer.begin()
        if answer.status != http.HTTPStatus.OK:
            msg = f"answers {answer.status}: {answer.read(200)!r}"
            raise PeerError(msg)
        return answer


def _split(graph: Graph, rows: int, raw: bytes, names: Iterable[str] | None = None) -> dict[str, NDArray[Any]]:
    """Outputs that follow one another, in the graph's order or that of these names."""
    found, at = {}, 0
    if len(raw) != graph.output_bytes(rows):
        msg = f"answers {len(raw)} bytes instead of {graph.output_bytes(rows)}"
        raise PeerError(msg)
    for name in names or graph.outputs:
        dtype, shape = graph.outputs[name]
        size = rows * math.prod(shape) * dtype.itemsize
        found[name] = np.frombuffer(raw[at : at + size], dtype).reshape(rows, *shape)
        at += size
    return found


@dataclass(frozen=True)
class RawHttp:
    """Pixels as they are in the body, outputs as they are in the answer's."""

    path: str = "/"
    protocol: ClassVar[str] = "http"

    def request(self, graph: Graph, pixels: NDArray[np.uint8]) -> bytes:  # noqa: ARG002 - the others need it
        """The request as it travels."""
        return _head(self.path, pixels.nbytes, "Content-Type: application/octet-stream\r\n") + pixels.tobytes()

    def outputs(self, graph: Graph, port: int, pixels: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """Ask once."""
        return _split(graph, len(pixels), _http(port, self.request(graph, pixels)).read())


@dataclass(frozen=True)
class KServeHttp:
    """The Open Inference Protocol over HTTP, with Triton's binary tensors."""

    protocol: ClassVar[str] = "http"

    def request(self, graph: Graph, pixels: NDArray[np.uint8]) -> bytes:
        """The request as it travels."""
        wanted = [{"name": name, "parameters": {"binary_data": True}} for name in graph.outputs]
        size = {"binary_data_size": pixels.nbytes}
        tensor = {"name": graph.input[0], "shape": pixels.shape, "datatype": "UINT8", "parameters": size}
        described = json.dumps({"inputs": [tensor], "outputs": wanted}).encode()
        length = f"Inference-Header-Content-Length: {len(described)}\r\n"
        head = _head(f"/v2/models/{graph.model}/infer", len(described) + pixels.nbytes, length)
        return head + described + pixels.tobytes()

    def outputs(self, graph: Graph, port: int, pixels: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """Ask once."""
        answer = _http(port, self.request(graph, pixels))
        length, body = int(answer.headers["Inference-Header-Content-Length"]), answer.read()
        names = [entry["name"] for entry in json.loads(body[:length])["outputs"]]
        return _split(graph, len(pixels), body[length:], names)


def grpc_call(port: int, request: bytes) -> Any:
    """Send a serialised request, and return the message that answers it."""
    with grpc.insecure_channel(f"{HOST}:{port}") as channel:
        call = channel.unary_unary(
            METHOD.decode(), request_serializer=bytes, response_deserializer=service_pb2.ModelInferResponse.FromString
        )
        try:
            return call(request, timeout=_WAIT_S)
        except grpc.RpcError as error:
            msg = f"answers {error.code().name}: {error.details()}"
            raise PeerError(msg) from error


@dataclass(frozen=True)
class KServeGrpc:
    """The Open Inference Protocol over gRPC, tensors as raw bytes."""

    protocol: ClassVar[str] = "grpc"

    def request(self, graph: Graph, pixels: NDArray[np.uint8]) -> bytes:
        """The serialised message."""
        message = service_pb2.ModelInferRequest(model_name=graph.model)
        message.inputs.add(name=graph.input[0], datatype="UINT8", shape=pixels.shape)
        for name in graph.outputs:
            message.outputs.add(name=name)
        message.raw_input_contents.append(pixels.tobytes())
        written: bytes = message.SerializeToString()
        return written

    def outputs(self, graph: Graph, port: int, pixels: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """Ask once."""
        answer = grpc_call(port, self.request(graph, pixels))
        names = [entry.name for entry in answer.outputs]
        return _split(graph, len(pixels), b"".join(answer.raw_output_contents), names)


@dataclass(frozen=True)
class BytesGrpc:
    """The same with each row's pixels as a string of bytes, and as its answer all its outputs."""

    protocol: ClassVar[str] = "grpc"

    def request(self, graph: Graph, pixels: NDArray[np.uint8]) -> bytes:
        """The serialised message."""
        message = service_pb2.ModelInferRequest(model_name=graph.model)
        message.inputs.add(name=graph.input[0], datatype="BYTES", shape=[len(pixels)])
        message.raw_input_contents.append(
            b"".join([len(raw).to_bytes(4, "little") + raw for raw in (row.tobytes() for row in pixels)])
        )
        written: bytes = message.SerializeToString()
        return written

    def outputs(self, graph: Graph, port: int, pixels: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """Ask once."""
        (raw,) = grpc_call(port, self.request(graph, pixels)).raw_output_contents
        size = 4 + graph.output_bytes(1)
        rows = [_split(graph, 1, raw[at + 4 : at + size]) for at in range(0, len(raw), size)]
        return {name: np.concatenate([row[name] for row in rows]) for name in graph.outputs}


@dataclass(frozen=True)
class SharedMemory:
    """Over gRPC, with input and outputs in one region of system shared memory; all calls use the same."""

    protocol: ClassVar[str] = "grpc"
    region: Any = None

    @staticmethod
    def name(graph: Graph) -> str:
        """The region's name on the server."""
        return f"radserve_peers_{graph.model}"

    @classmethod
    @contextmanager
    def opened(cls, graph: Graph, port: int, rows: int) -> Iterator[SharedMemory]:
        """With a region for so many rows that the server at this port knows."""
        name, size = cls.name(graph), graph.pixels(rows, 0).nbytes + graph.output_bytes(rows)
        region = shared_memory.create_shared_memory_region(name, f"/{name}", size)
        try:
            with triton.InferenceServerClient(f"{HOST}:{port}") as client:
                client.register_system_shared_memory(name, f"/{name}", size)
                yield cls(region)
                client.unregister_system_shared_memory(name)
        finally:
            shared_memory.destroy_shared_memory_region(region)

    def request(self, graph: Graph, pixels: NDArray[np.uint8]) -> bytes:
        """The serialised message; the pixels are put into the region."""
        shared_memory.set_shared_memory_region(self.region, [pixels])
        message, at = service_pb2.ModelInferRequest(model_name=graph.model), 0
        tensor = message.inputs.add(name=graph.input[0], datatype="UINT8", shape=pixels.shape)
        at = self._place(tensor, graph, pixels.nbytes, at)
        for name, (dtype, shape) in graph.outputs.items():
            size = len(pixels) * math.prod(shape) * dtype.itemsize
            at = self._place(message.outputs.add(name=name), graph, size, at)
        written: bytes = message.SerializeToString()
        return written

    def _place(self, tensor: Any, graph: Graph, size: int, at: int) -> int:
        tensor.parameters["shared_memory_region"].string_param = self.name(graph)
        tensor.parameters["shared_memory_byte_size"].int64_param = size
        tensor.parameters["shared_memory_offset"].int64_param = at
        return at + size

    def outputs(self, graph: Graph, port: int, pixels: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """Ask once."""
        grpc_call(port, self.request(graph, pixels))
        size = graph.output_bytes(len(pixels))
        raw = shared_memory.get_contents_as_numpy(self.region, np.uint8, [size], offset=pixels.nbytes)
        return _split(graph, len(pixels), raw.tobytes())


Wire = RawHttp | KServeHttp | KServeGrpc | BytesGrpc | SharedMemory
