"""What the SDK counts for Prometheus, of which calls, in which bins, and at no cost while nobody asks for it."""

from __future__ import annotations

import asyncio
import importlib
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest
from support.datasets import TEST_FILES
from support.meetings import COUNT, TEXTS, Server, asked, connected
from support.sdk_contracts import IMAGE, TEXT, contract, tensors

import radserve.metrics
from radserve import InputError, MissingExtraError
from radserve._codec import Prepare, Prepared, prepare_step
from radserve._codec._observed import observe
from radserve._workers import Workers
from radserve.contracts import Distribution, Reference
from radserve.errors import ServerOverloadedError
from radserve.results import Classification, ImageFindings
from radserve.telemetry import request, span, watcher

if TYPE_CHECKING:
    from collections.abc import Iterator

    from radserve.contracts import Contract
    from radserve.metrics import Metrics

LEVEL = Distribution(edges=(4.0, 8.0, 40.0), shares=(0.5, 0.25, 0.25, 0.0))
SCORES = (Distribution(edges=(0.0015, 0.0055), shares=(0.5, 0.5, 0.0)), Distribution(edges=(0.5,), shares=(0.9, 0.1)))
REFERENCE = Reference(n=4, level=LEVEL, scores=SCORES)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> Iterator[Metrics]:
    registered = radserve.metrics.register(registry)
    yield registered
    registered.unregister()


def _told(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, labels)


def _buckets(registry: CollectorRegistry, name: str, **labels: str) -> dict[str, float]:
    return {
        sample.labels["le"]: sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    }


def _ask(kind: str, server: Server, served: Contract) -> None:
    model = connected(kind, server)
    model._cell.contract = served
    if kind == "sync":
        for text in TEXTS:
            model.predict(text)
    else:

        async def together() -> None:
            await asyncio.gather(*map(model.predict, TEXTS))

        asyncio.run(together())


@pytest.mark.usefixtures("metrics")
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_each_call_is_counted_with_its_time(kind: str, registry: CollectorRegistry) -> None:
    asked(kind, Server())
    assert _told(registry, "radserve_requests_total", model="demo", outcome="ok") == COUNT
    assert _told(registry, "radserve_request_seconds_count", model="demo") == COUNT
    assert _told(registry, "radserve_prepare_seconds_count", model="demo") == COUNT


@pytest.mark.usefixtures("metrics")
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_failure_is_counted_by_its_errors_class(kind: str, registry: CollectorRegistry) -> None:
    server = Server()

    def refuse(_texts: list[str], _endpoint: str) -> None:
        msg = "full"
        raise ServerOverloadedError(msg)

    server.act = refuse
    asked(kind, server)
    assert _told(registry, "radserve_requests_total", model="demo", outcome="ServerOverloadedError") == COUNT
    assert _told(registry, "radserve_requests_total", model="demo", outcome="ok") is None


@pytest.mark.usefixtures("metrics")
def test_what_an_application_does_not_ask_is_not_counted(registry: CollectorRegistry) -> None:
    with span("infer", model="demo"), request("health"):
        pass
    assert b'model="' not in generate_latest(registry)


@pytest.mark.usefixtures("metrics")
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_levels_and_scores_fall_into_the_references_bins(kind: str, registry: CollectorRegistry) -> None:
    _ask(kind, Server(), contract(TEXT, reference=REFERENCE))
    of = {"model": "demo", "version": "3"}
    assert _buckets(registry, "radserve_input_level_bucket", **of) == {"4.0": 0, "8.0": 8, "40.0": 8, "+Inf": 8}
    assert _told(registry, "radserve_input_level_count", **of) == 8
    assert _told(registry, "radserve_input_level_sum", **of) == 8 * len("report 0")
    normal = _buckets(registry, "radserve_score_bucket", label="normal", **of)
    assert normal == {"0.0015": 2, "0.0055": 6, "+Inf": 8}
    assert _told(registry, "radserve_score_sum", label="normal", **of) == pytest.approx(0.028)
    assert _buckets(registry, "radserve_score_bucket", label="opacity", **of) == {"0.5": 8, "+Inf": 8}


@pytest.mark.usefixtures("metrics")
def test_the_reference_is_told_beside_them_by_the_same_bounds(registry: CollectorRegistry) -> None:
    _ask("sync", Server(), contract(TEXT, reference=REFERENCE))
    of = {"model": "demo", "version": "3"}
    shares = _buckets(registry, "radserve_input_level_reference", **of)
    assert shares == {"4.0": 0.5, "8.0": 0.75, "40.0": 1.0, "+Inf": 1.0}
    assert shares.keys() == _buckets(registry, "radserve_input_level_bucket", **of).keys()
    assert _buckets(registry, "radserve_score_reference", label="opacity", **of) == {"0.5": 0.9, "+Inf": 1.0}


@pytest.mark.usefixtures("metrics")
def test_without_a_reference_nothing_of_inputs_and_scores_is_told(registry: CollectorRegistry) -> None:
    _ask("sync", Server(), contract(TEXT))
    assert b"radserve_input_level_bucket" not in generate_latest(registry)
    observe(tensors(), Prepared(inputs={}), None)  # type: ignore[arg-type] # neither is looked at


@pytest.mark.usefixtures("metrics")
def test_nothing_that_is_read_becomes_a_label(registry: CollectorRegistry) -> None:
    _ask("sync", Server(), contract(TEXT, reference=REFERENCE))
    names = {name for metric in registry.collect() for sample in metric.samples for name in sample.labels}
    assert names == {"model", "outcome", "version", "label", "le"}
    assert b"report" not in generate_latest(registry)


@pytest.mark.usefixtures("metrics")
def test_of_a_study_each_image_counts(registry: CollectorRegistry) -> None:
    hu = Distribution(edges=(-100.0, 0.0, 100.0), shares=(0.25, 0.25, 0.25, 0.25))
    served = contract(IMAGE, reference=Reference(n=1, level=hu, scores=SCORES))
    array = np.zeros((2, *served.inputs[0].dims), served.inputs[0].dtype.numpy)
    array[1] = 255
    observe(served, Prepared(inputs={served.inputs[0].name: array}), _classified([0.001, 0.004]))
    of = {"model": "demo", "version": "3"}
    assert _buckets(registry, "radserve_input_level_bucket", **of) == {"-100.0": 1, "0.0": 1, "100.0": 1, "+Inf": 2}
    assert _told(registry, "radserve_input_level_count", **of) == 2
    assert _told(registry, "radserve_input_level_sum", **of) == pytest.approx(2 * 39.5)
    assert _buckets(registry, "radserve_score_bucket", label="normal", **of) == {"0.0015": 1, "0.0055": 2, "+Inf": 2}


def _classified(probabilities: list[float]) -> Classification:
    """A study's answer, as far as it is looked at."""
    names = ("normal", "opacity")

    def findings(probability: float) -> Any:
        return tuple(_Finding(name, probability) for name in names)

    images = tuple(
        ImageFindings(sop_instance_uid=None, frame_number=None, findings=findings(one)) for one in probabilities
    )
    return Classification(model="demo", version=3, provenance=None, findings=findings(0.9), images=images)  # type: ignore[arg-type] # not looked at


class _Finding:
    def __init__(self, label: str, probability: float) -> None:
        self.label = label
        self.probability = probability


@pytest.mark.usefixtures("metrics")
def test_of_a_models_versions_the_two_newest_stay(metrics: Metrics, registry: CollectorRegistry) -> None:
    for version in (3, 4, 5, 3):
        metrics.answered(contract(TEXT, version=version, reference=REFERENCE), [1.0], [])
    found = {sample.labels["version"] for metric in registry.collect() for sample in metric.samples if sample.labels}
    assert found == {"4", "5"}


def test_another_model_by_the_same_name_and_version_costs_no_answer(
    metrics: Metrics, registry: CollectorRegistry
) -> None:
    first = contract(TEXT, reference=REFERENCE)
    renamed = tuple(msgspec.structs.replace(label, name=f"other {label.name}") for label in first.labels)
    second = contract(TEXT, reference=REFERENCE, labels=renamed)
    metrics.answered(first, [1.0], [{label.name: 0.1 for label in first.labels}])
    metrics.answered(second, [1.0], [{label.name: 0.1 for label in second.labels}])
    of = {"model": "demo", "version": "3"}
    assert _told(registry, "radserve_input_level_count", **of) == 1
    assert _told(registry, "radserve_score_count", label="normal", **of) == 1
    assert _told(registry, "radserve_score_count", label="other normal", **of) is None


def test_threads_lose_no_count(metrics: Metrics, registry: CollectorRegistry) -> None:
    served = contract(TEXT, reference=REFERENCE)

    def answer(_: int) -> None:
        for _ in range(200):
            metrics.answered(served, [1.0], [{"normal": 0.1, "opacity": 0.2}])
            metrics.asked("demo", "ok", 0.1)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(answer, range(8)))
    assert _told(registry, "radserve_input_level_count", model="demo", version="3") == 1600
    assert _told(registry, "radserve_requests_total", model="demo", outcome="ok") == 1600


@pytest.mark.usefixtures("metrics", "no_child_left")
def test_what_a_worker_process_prepares_is_timed_there(registry: CollectorRegistry) -> None:
    workers = Workers(1)
    try:
        for source in (TEST_FILES / "CT_small.dcm", b"no image"):
            future = workers.submit(Prepare(contract=contract(), source=source))
            future.exception(60)
    finally:
        workers.close()
    assert _told(registry, "radserve_prepare_seconds_count", model="demo") == 2


@pytest.mark.usefixtures("metrics")
def test_what_cannot_be_prepared_is_timed_too(registry: CollectorRegistry) -> None:
    with pytest.raises(InputError):
        prepare_step(Prepare(contract=contract(), source=b"no image"))
    assert _told(registry, "radserve_prepare_seconds_count", model="demo") == 1


@pytest.mark.usefixtures("metrics")
def test_promtool_finds_nothing_wrong_with_them(registry: CollectorRegistry) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    hu = Distribution(edges=(-100.0, 0.0), shares=(0.5, 0.25, 0.25))
    _ask("sync", Server(), contract(TEXT, reference=Reference(n=4, level=hu, scores=SCORES)))
    command, text = [promtool, "check", "metrics"], generate_latest(registry)
    done = subprocess.run(command, input=text, capture_output=True, check=False)  # noqa: S603 - of Prometheus
    remarks = {line.partition(" ")[0] for line in done.stderr.decode().splitlines()}
    assert remarks == {"radserve_input_level_reference", "radserve_score_reference"}  # gauges with le, as is meant


def test_registered_once_and_until_unregistered(registry: CollectorRegistry) -> None:
    registered = radserve.metrics.register(registry)
    try:
        with pytest.raises(InputError, match="observed already"):
            radserve.metrics.register(CollectorRegistry())
    finally:
        registered.unregister()
    assert watcher() is None
    assert not list(registry.collect())
    radserve.metrics.register(registry).unregister()


def test_where_the_registry_refuses_one_metric_it_keeps_none(registry: CollectorRegistry) -> None:
    theirs = Counter("radserve_prepare_seconds", "The application's own.", registry=registry)
    with pytest.raises(ValueError, match="radserve_prepare_seconds"):
        radserve.metrics.register(registry)
    assert watcher() is None
    registry.unregister(theirs)
    radserve.metrics.register(registry).unregister()


def test_unregistered_twice_leaves_whoever_observes_now(registry: CollectorRegistry) -> None:
    before = radserve.metrics.register(registry)
    before.unregister()
    now = radserve.metrics.register(registry)
    try:
        before.unregister()
        assert watcher() is now
        assert list(registry.collect())
    finally:
        now.unregister()


def test_without_the_extra_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "radserve.metrics")
    with pytest.raises(MissingExtraError, match=r"pip install '\.\[metrics\]'"):
        importlib.import_module("radserve.metrics")


def test_nobody_who_does_not_ask_imports_prometheus() -> None:
    code = "import sys, radserve; radserve.Client, radserve.AsyncClient; assert 'prometheus_client' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603 - ourselves
