"""Spans and log records: what is told, and what is not."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from radserve.telemetry import span


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


def test_opentelemetry_is_left_to_the_application() -> None:
    use = "import sys; from radserve.telemetry import span\nwith span('read'): pass\n"
    code = f"{use}assert 'opentelemetry' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603 - ourselves
