"""Spans and log records: what is told, and what is not."""

from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import fields
from typing import Any

import grpc
import numpy as np
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import INVALID_SPAN, NonRecordingSpan, SpanContext, TraceFlags, use_span
from support.meetings import COUNT, Server, asked
from support.sdk_contracts import contract

from radserve._codec import Prepared
from radserve._codec._decode import Answer
from radserve._codec._flow import Ask, Infer, Prepare, Reply
from radserve._codec._wire import Request
from radserve._transport._calls import Failure, Rpc
from radserve._transport._core import Connection, Send
from radserve._transport._errors import translate
from radserve.cli._inputs import Item
from radserve.dicom._codecs import Frame
from radserve.dicom._headers import Header
from radserve.sources import Channel, Geometry, Image, MultiplexGroup, Scope, VoiLut, Waveform
from radserve.telemetry import current_span, span, traceparent, under

FORGED = "头颅 a\n2026-11-23 CRITICAL forged\x1b[31m\u2028\udcff"
ESCAPED = r"头颅 a\n2026-11-23 CRITICAL forged\x1b[31m\u2028\udcff"


class DoeError(ValueError):
    """An error whose message names a patient."""

    def __str__(self) -> str:
        return "Doe^John"


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    return exporter


def test_a_span_names_work_model_and_version(exporter: InMemorySpanExporter) -> None:
    with span("predict", model="demo", version=3), span("infer", model="demo"):
        pass
    inner, outer = exporter.get_finished_spans()
    assert (outer.name, dict(outer.attributes or {})) == (
        "radserve.predict",
        {"radserve.model": "demo", "radserve.version": 3},
    )
    assert inner.parent is not None
    assert inner.parent.span_id == outer.context.span_id


def test_a_failed_span_names_the_errors_type_and_nothing_of_its_message(exporter: InMemorySpanExporter) -> None:
    with pytest.raises(DoeError), span("read"):
        raise DoeError
    (failed,) = exporter.get_finished_spans()
    assert not failed.status.is_ok
    assert dict(failed.attributes or {}) == {"error.type": "DoeError"}
    assert "John" not in failed.to_json()
    assert not failed.events


def test_the_log_tells_outcome_and_time(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "radserve"), pytest.raises(DoeError), span("read", model="demo"):
        raise DoeError
    (record,) = caplog.records
    assert record.getMessage().startswith("read model=demo: DoeError after ")


def test_a_name_cannot_forge_a_line(caplog: pytest.LogCaptureFixture, exporter: InMemorySpanExporter) -> None:
    with caplog.at_level(logging.DEBUG, "radserve"), span("call", model=FORGED):
        pass
    (record,), (told,) = caplog.records, exporter.get_finished_spans()
    assert record.getMessage().startswith(f"call model={ESCAPED}: done after ")
    assert dict(told.attributes or {}) == {"radserve.model": ESCAPED}


def test_an_error_of_a_model_is_one_line() -> None:
    error = translate(grpc.StatusCode.NOT_FOUND, "unknown", url="a:1", model=FORGED)
    assert ESCAPED in str(error)
    assert str(error).isprintable()
    assert error.model == FORGED


def test_opentelemetry_is_left_to_the_application() -> None:
    use = "import sys; from radserve.telemetry import span\nwith span('read'): pass\n"
    code = f"{use}assert 'opentelemetry' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603 - ourselves


def _holders() -> list[object]:
    """One of each that holds a secret, or something of a patient's file."""
    pixels = np.array([[90817]], np.float32)
    request = Request(model="m", version=1, id="r", head=b"", contents=((b"90817",),), sizes=(5,))
    scope = Scope(patient_age_years=90817, sop_instance_uid="1.90817")
    geometry = Geometry(
        position_mm=(90817, 0, 0),
        row_cosines=(1, 0, 0),
        column_cosines=(0, 1, 0),
        pixel_spacing_mm=(1, 1),
        frame_of_reference_uid="1.90817",
    )
    channel = Channel(codes=(), microvolts=np.array([90817.0]))
    lut = VoiLut(first=0, table=np.array([90817 % 2**16], np.uint16), bits=16)
    rpc = Rpc(method="ModelInfer", request=request)
    return [
        Send(Connection(None, None, None), rpc, 1.0, (("authorization", "Bearer 90817"),)),
        Failure(grpc.StatusCode.INVALID_ARGUMENT, "unexpected text '90817'"),
        Ask(call=Infer(request=request), timeout_s=1.0),
        Prepare(contract=contract(), source="Doe 90817"),
        Reply(message=request, endpoint="a:1"),
        Answer(arrays={"X": pixels}, request_id="r"),
        Prepared(inputs={"X": pixels}, sop_instance_uids=("1.90817",), geometry=geometry),
        Frame(stored=pixels, photometric_interpretation="MONOCHROME2", bits_stored=16),
        Header(**dict.fromkeys((field.name for field in fields(Header)), "1.90817")),  # type: ignore[arg-type]
        geometry,
        Image(pixels=pixels, photometric_interpretation="MONOCHROME2", windows=(lut,), scope=scope),
        Waveform(groups=(MultiplexGroup(sampling_frequency_hz=1, channels=(channel,)),), scope=scope),
        Item("Doe 90817", "Doe 90817"),
    ]


@pytest.mark.parametrize("holder", _holders(), ids=lambda holder: type(holder).__name__)
def test_a_representation_shows_no_secret_and_nothing_of_a_patient(holder: object) -> None:
    shown = repr(holder)
    assert type(holder).__name__ in shown
    assert not any(part in shown for part in ("90817", str(90817 % 2**16), "Doe"))


def _sent(headers: tuple[tuple[str, str], ...]) -> tuple[int, int]:
    ((name, value),) = headers
    version, trace_id, span_id, flags = value.split("-")
    assert (name, version, flags) == ("traceparent", "00", "01")
    return int(trace_id, 16), int(span_id, 16)


def test_a_server_is_told_under_which_span_it_works(exporter: InMemorySpanExporter) -> None:
    assert traceparent() == ()
    with span("infer"):
        sent = _sent(traceparent())
    (told,) = exporter.get_finished_spans()
    assert sent == (told.context.trace_id, told.context.span_id)


def test_calls_of_several_traces_in_one_request_go_under_the_first_and_link_to_it(
    exporter: InMemorySpanExporter,
) -> None:
    waiting: list[Any] = []
    with span("infer", model="one"):
        waiting.append(current_span())
        with use_span(INVALID_SPAN), span("infer", model="another"):
            waiting.append(current_span())
            with under(waiting):
                sent = _sent(traceparent())
            assert _sent(traceparent()) != sent
    another, one = exporter.get_finished_spans()
    assert sent == (one.context.trace_id, one.context.span_id)
    assert [link.context.span_id for link in another.links] == [one.context.span_id]
    assert another.context.trace_id != one.context.trace_id
    assert not one.links


def test_what_is_traced_is_told_whoever_else_in_one_request_is_not(exporter: InMemorySpanExporter) -> None:
    unkept = NonRecordingSpan(SpanContext(trace_id=7, span_id=7, is_remote=False, trace_flags=TraceFlags(0)))
    for others in ([None], [INVALID_SPAN], [unkept]):
        exporter.clear()
        with span("infer"):
            one = current_span()
            with use_span(INVALID_SPAN), under([*others, one, *others]):
                sent = _sent(traceparent())
        (told,) = exporter.get_finished_spans()
        assert sent == (told.context.trace_id, told.context.span_id)
        assert not told.links


def test_what_nobody_traces_is_done_under_no_span(exporter: InMemorySpanExporter) -> None:
    with span("infer"), under([INVALID_SPAN]):
        assert traceparent() == ()
    with span("infer"), under([None]):
        pass
    assert len(exporter.get_finished_spans()) == 2


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_each_of_many_is_traced_by_itself_under_the_callers_span(kind: str, exporter: InMemorySpanExporter) -> None:
    server = Server()
    sent: list[tuple[int, int]] = []
    server.act = lambda _texts, _endpoint: sent.append(_sent(traceparent()))
    with span("predict", model="caller"):
        asked(kind, server)
    *told, caller = exporter.get_finished_spans()
    own = [one for one in told if one.name == "radserve.predict"]
    assert len(own) == COUNT
    assert {one.parent.span_id for one in own if one.parent} == {caller.context.span_id}
    inferred = {one.context.span_id: one for one in told if one.name == "radserve.infer"}
    first = {span_id for _, span_id in sent}
    assert first <= inferred.keys()
    linked = [link.context.span_id for one in inferred.values() for link in one.links]
    assert len(linked) == COUNT - len(sent)
    assert set(linked) <= first
    assert kind == "sync" or linked
