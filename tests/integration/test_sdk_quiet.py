"""Nothing that names a patient leaves: not by wire, log, output, warning, exception or span."""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from support.canaries import Canaries, saved
from support.proxies import Proxy

from radserve import (
    AsyncClient,
    Classification,
    Client,
    ClientOptions,
    DecodeError,
    DicomError,
    InputError,
    OutOfScopeError,
    RadserveError,
    Rejection,
    ServerError,
)
from radserve.audit import AuditLog
from radserve_export.synthetic import Split, generate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pydicom.dataset import Dataset

    from radserve_server import EmbeddedServer


class Heard:
    """What was said where somebody could listen."""

    def __init__(self) -> None:
        self.records: list[str] = []
        self.spans = InMemorySpanExporter()

    def everything(self) -> list[str]:
        return [*self.records, *(span.to_json() for span in self.spans.get_finished_spans())]


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Iterator[Heard]:
    """All loggers at DEBUG, all warnings, all spans."""
    heard, provider = Heard(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(heard.spans))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)

    class Listening(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.records.append(f"{record.name} {record.getMessage()} {record.args} {record.exc_text}")
            heard.records.append(logging.Formatter().format(record))

    handler, root = Listening(logging.DEBUG), logging.getLogger()
    loggers = [root, *(logging.getLogger(name) for name in ("radserve", "pydicom", "grpc", "asyncio"))]
    levels = [logger.level for logger in loggers]
    root.addHandler(handler)
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    try:
        yield heard
    finally:
        root.removeHandler(handler)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _told_by(error: BaseException) -> str:
    """All that a caller's log could hold of an exception, those before it included."""
    told, one = [], error
    seen: set[int] = set()
    pending: list[BaseException | None] = [one]
    while pending:
        current = pending.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        told += [str(current), repr(current), repr(current.args), repr(vars(current))]
        pending += [current.__cause__, current.__context__]
    return "\n".join([*told, *traceback.format_exception(error)])


class Guard:
    """Marks, and the proof that none of them was told to anybody."""

    def __init__(self, heard: Heard, capture: pytest.CaptureFixture[str]) -> None:
        self.canaries, self.heard, self._capture = Canaries(seed=5), heard, capture
        self.said: list[str] = []

    @contextmanager
    def nothing_leaks(self) -> Iterator[None]:
        """Listens inside; what else was said is in ``said``."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        told = [*self.said, *self.heard.everything(), *(str(one.message) for one in caught)]
        assert self.canaries.found("told", *told, *self._capture.readouterr()) == []

    @contextmanager
    def refused(self, error: type[BaseException]) -> Iterator[None]:
        with pytest.raises(error) as caught:
            yield
        self.said.append(_told_by(caught.value))


def _source(model: str = "chest_xray") -> bytes:
    source = next(generate(model, 1, seed=11, split=Split.TEST)).source
    assert isinstance(source, bytes)
    return source


@pytest.fixture
def guard(heard: Heard, capfd: pytest.CaptureFixture[str]) -> Guard:
    return Guard(heard, capfd)


@pytest.fixture
def file(tmp_path: Path, guard: Guard) -> Path:
    """A file with a mark in every identifying attribute, in private ones, in its name and in its path."""
    folder = tmp_path / guard.canaries.mark()
    folder.mkdir()
    path = folder / f"{guard.canaries.mark()}.dcm"
    path.write_bytes(saved(guard.canaries.fill(_source())))
    return path


def test_a_mark_would_be_found(guard: Guard, file: Path) -> None:
    of_file = [mark for mark in guard.canaries.marks if mark not in str(file)]
    assert len(of_file) > 300
    assert len(guard.canaries.found("file", file.read_bytes())) == len(of_file)
    assert guard.canaries.found("x", of_file[0].encode("utf-16-le"))


def test_an_answer_leaks_nothing(guard: Guard, file: Path, reference_server: EmbeddedServer) -> None:
    with Proxy(reference_server.grpc_url) as proxy, guard.nothing_leaks(), Client(proxy.url) as client:
        model = client.model("chest_xray", Classification)
        result = model.predict(file)
        (again,) = model.predict_many([file])
        guard.said += [repr(client), repr(model), repr(result), result.to_json(), repr(again)]
        sent = proxy.bytes_to_server
    assert len(sent) > 2 * 28 * 28, "the pixels went this way"
    assert guard.canaries.found("wire", sent) == []
    assert any("infer" in record for record in guard.heard.records), "the log was listened to"
    assert {"radserve.predict", "radserve.infer"} <= {one.name for one in guard.heard.spans.get_finished_spans()}


def _truncated(dataset: Dataset) -> bytes:
    return saved(dataset)[:-300]


def _of_another_modality(dataset: Dataset) -> bytes:
    dataset.Modality = "CT"
    return saved(dataset)


def _without_rows(dataset: Dataset) -> bytes:
    del dataset.Rows
    return saved(dataset)


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (_truncated, DecodeError),
        (_of_another_modality, OutOfScopeError),
        (_without_rows, DicomError),
    ],
)
def test_a_refused_file_leaks_nothing(
    guard: Guard,
    tmp_path: Path,
    reference_server: EmbeddedServer,
    damage: Callable[[Dataset], bytes],
    error: type[RadserveError],
) -> None:
    path = tmp_path / f"{guard.canaries.mark()}.dcm"
    path.write_bytes(damage(guard.canaries.fill(_source())))
    with guard.nothing_leaks(), Client(reference_server.grpc_url) as client:
        model = client.model("chest_xray")
        with guard.refused(error):
            model.predict(path)


def test_a_file_that_is_not_there_is_not_told_of(
    guard: Guard, tmp_path: Path, reference_server: EmbeddedServer
) -> None:
    with guard.nothing_leaks(), Client(reference_server.grpc_url) as client:
        model = client.model("chest_xray")
        with guard.refused(RadserveError):
            model.predict(tmp_path / f"{guard.canaries.mark()}.dcm")


@pytest.mark.parametrize("fault", ["cut", "stall"])
def test_a_broken_connection_leaks_nothing(
    guard: Guard, file: Path, reference_server: EmbeddedServer, fault: str
) -> None:
    with Proxy(reference_server.grpc_url) as proxy, guard.nothing_leaks(), Client(proxy.url) as client:
        model = client.model("chest_xray")
        getattr(proxy, fault)()
        with guard.refused(ServerError):
            model.predict(file, timeout_s=1.5)
        assert guard.canaries.found("wire", proxy.bytes_to_server) == []


def test_a_report_reaches_the_server_alone(guard: Guard, reference_server: EmbeddedServer) -> None:
    report = f"{guard.canaries.mark()}: no evidence of pneumothorax. " * 3
    with Proxy(reference_server.grpc_url) as proxy, guard.nothing_leaks(), Client(proxy.url) as client:
        model = client.model("report_triage")
        guard.said.append(repr(model.predict(report)))
        with guard.refused(OutOfScopeError):
            model.predict(report * 50)
        assert guard.canaries.found("wire", proxy.bytes_to_server), "the text itself is what is asked about"


def test_each_question_is_in_the_audit_log(guard: Guard, file: Path, reference_server: EmbeddedServer) -> None:
    path = file.parent / "audit.jsonl"
    audit = AuditLog(path, site_key=bytes(range(32)), actor="PACS")
    options = ClientOptions(endpoints=(reference_server.grpc_url,), audit=audit)

    async def by_loop() -> None:
        async with AsyncClient(options=options) as client:
            await (await client.model("chest_xray")).predict(file)

    with Client(options=options) as client:
        model = client.model("chest_xray")
        result = model.predict(file)
        with guard.refused(InputError):
            model.predict("no image")
    asyncio.run(by_loop())
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    assert [entry["outcome"] for entry in entries] == ["answered", type_of(guard), "answered"]
    (uid,) = result.provenance.sop_instance_uids
    assert [entry["inputs"] for entry in entries] == [[audit.hashed(uid)], [], [audit.hashed(uid)]]
    assert entries[0]["request_id"] == result.provenance.request_id
    assert guard.canaries.found("audit", path.read_bytes()) == []


def type_of(guard: Guard) -> str:
    """The type of the last error that was refused."""
    return guard.said[-1].splitlines()[-1].partition(":")[0].rpartition(".")[2]


def test_nothing_is_answered_without_an_entry(file: Path, reference_server: EmbeddedServer) -> None:
    audit = AuditLog("/dev/full", site_key=bytes(range(32)), actor="PACS")
    with Client(options=ClientOptions(endpoints=(reference_server.grpc_url,), audit=audit)) as client:
        model = client.model("chest_xray")
        with pytest.raises(RadserveError, match="nothing is answered without it"):
            model.predict(file)
        (refused,) = model.predict_many([file])
        assert isinstance(refused, Rejection)
