"""An OpenTelemetry collector that keeps what it is told: OTLP over gRPC, as Envoy's, and over HTTP, as Triton's."""

from __future__ import annotations

import base64
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Span:
    """What somebody did.

    Attributes:
        service: Who.
        name: What.
        trace_id: Hexadecimal, as all ids.
        span_id: Its own.
        parent_id: Of the span in which it was done; empty at the root.
        attributes: By name, as text.
        told: Everything that was said of it.
    """

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, str]
    told: str


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps spans.

    Attributes:
        spans: In the order of their arrival.
        address: ``(host, port)`` of OTLP over gRPC.
        url: Of OTLP over HTTP.
    """

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.address = ("", 0)
        self.url = ""

    def Export(  # noqa: N802 - gRPC's name
        self, request: trace_service_pb2.ExportTraceServiceRequest, _context: grpc.ServicerContext
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        """Take spans by gRPC."""
        self.keep(MessageToDict(request), is_hexadecimal=False)
        return trace_service_pb2.ExportTraceServiceResponse()

    def keep(self, message: dict[str, Any], *, is_hexadecimal: bool) -> None:
        """Keep the spans of a message as JSON; OTLP writes ids as hexadecimal, protobuf as base64."""

        def readable(given: str) -> str:
            return given if is_hexadecimal else base64.b64decode(given).hex()

        for resource in message["resourceSpans"]:
            service = _attributes(resource["resource"])["service.name"]
            for span in (span for scope in resource["scopeSpans"] for span in scope["spans"]):
                own, parent = readable(span["spanId"]), readable(span.get("parentSpanId", ""))
                told = _attributes(span), json.dumps(span)
                self.spans.append(Span(service, span["name"], readable(span["traceId"]), own, parent, *told))

    def of(self, trace_id: str, service: str) -> list[Span]:
        """What a service told of a trace."""
        return [span for span in self.spans if (span.trace_id, span.service) == (trace_id, service)]


def _attributes(told: dict[str, Any]) -> dict[str, str]:
    return {one["key"]: str(*one["value"].values()) for one in told.get("attributes", [])}


@contextmanager
def collector() -> Iterator[Collector]:
    """A collector on loopback."""
    kept = Collector()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            kept.keep(json.loads(self.rfile.read(int(self.headers["content-length"]))), is_hexadecimal=True)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    with ThreadPoolExecutor(2) as pool, ThreadingHTTPServer(("127.0.0.1", 0), Handler) as over_http:
        over_grpc = grpc.server(pool)
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(kept, over_grpc)  # type: ignore[no-untyped-call] # generated
        kept.address = "127.0.0.1", over_grpc.add_insecure_port("127.0.0.1:0")
        kept.url = f"http://127.0.0.1:{over_http.server_port}/v1/traces"
        over_grpc.start()
        threading.Thread(target=over_http.serve_forever, kwargs={"poll_interval": 0.05}).start()
        try:
            yield kept
        finally:
            over_http.shutdown()
            over_grpc.stop(None).wait()
