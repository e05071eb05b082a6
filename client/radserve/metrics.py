"""Metrics of the SDK for Prometheus: what is asked, how long it takes, and whether inputs and scores stay as they were.

One call, where a program starts, observes all its clients; the metrics go where
those of the application go::

    import prometheus_client
    import radserve.metrics

    radserve.metrics.register()
    prometheus_client.start_http_server(9000)

| metric | labels | what |
|---|---|---|
| ``radserve_requests_total`` | model, outcome | calls of ``predict`` and ``infer``, and items of ``predict_many``; \
outcome is ``ok`` or the error's class |
| ``radserve_request_seconds`` | model | how long each took, all attempts together |
| ``radserve_prepare_seconds`` | model | how long an input took to read and preprocess, also in a worker process |
| ``radserve_input_level`` | model, version | ``radserve.preprocess.level`` of each input that was answered |
| ``radserve_score`` | model, version, label | each probability that was answered; of a study those of its images |
| ``radserve_input_level_reference`` | model, version, le | share of the reference inputs up to ``le`` |
| ``radserve_score_reference`` | model, version, label, le | share of their probabilities |

The last four are there for models whose contract has a reference, in its bins, of
the two newest versions that answered. Where two servers serve different models by the
same name and version, they are those of the one that answered first. Nothing else of
an input is kept.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from contextlib import ExitStack
from itertools import accumulate
from typing import TYPE_CHECKING

from radserve import telemetry
from radserve.errors import InputError, MissingExtraError

try:
    from prometheus_client import REGISTRY, Counter, Histogram
    from prometheus_client.metrics_core import GaugeMetricFamily, Metric
    from prometheus_client.registry import Collector
    from prometheus_client.utils import floatToGoString
except ImportError as error:
    raise MissingExtraError(extra="metrics", what="radserve.metrics") from error

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from prometheus_client import CollectorRegistry

    from radserve.contracts import Contract, Distribution

__all__ = ["Metrics", "register"]

_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_VERSIONS = 2


def register(registry: CollectorRegistry = REGISTRY) -> Metrics:
    """Observe all clients of this process from now on.

    Args:
        registry: Where the metrics go.

    Raises:
        InputError: They are observed already.
        ValueError: The registry has other metrics of these names.
    """
    if telemetry.watcher() is not None:
        msg = "the clients of this process are observed already: call register() once, where the program starts"
        raise InputError(msg)
    metrics = Metrics(registry)
    telemetry.watch(metrics)
    return metrics


class Metrics:
    """The metrics of this process; made by ``register``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter("radserve_requests", "What was asked of a model.", ["model", "outcome"], registry=None)
        self._seconds = _seconds("radserve_request_seconds", "How long it took.")
        self._prepare = _seconds("radserve_prepare_seconds", "How long an input took to prepare.")
        self._population = _Population()
        collectors: tuple[Collector, ...] = (self._requests, self._seconds, self._prepare, self._population)
        with ExitStack() as registered:  # all of them or, where one is refused, none
            for collector in collectors:
                registry.register(collector)
                registered.callback(registry.unregister, collector)
            self._registered = registered.pop_all()

    def unregister(self) -> None:
        """Observe nothing any more."""
        if telemetry.watcher() is self:
            telemetry.watch(None)
        self._registered.close()

    def asked(self, model: str, outcome: str, seconds: float) -> None:
        """Count a call."""
        self._requests.labels(model, outcome).inc()
        self._seconds.labels(model).observe(seconds)

    def prepared(self, model: str, seconds: float) -> None:
        """Count an input that was prepared, or could not be."""
        self._prepare.labels(model).observe(seconds)

    def answered(self, contract: Contract, levels: Iterable[float], scores: Iterable[Mapping[str, float]]) -> None:
        """Count an answer of a model whose contract has a reference."""
        self._population.add(contract, levels, scores)


def _seconds(name: str, what: str) -> Histogram:
    return Histogram(name, what, ["model"], buckets=_BUCKETS_S, registry=None)


class _Bins:
    """How often values fell into the bins of a distribution."""

    def __init__(self, reference: Distribution) -> None:
        self.les = [*map(floatToGoString, reference.edges), "+Inf"]
        self.reference = [min(1.0, share) for share in accumulate(reference.shares)]
        self._edges = reference.edges
        self._counts = [0] * len(self.les)
        self._sum = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._edges, value)] += 1
        self._sum += value

    def tell(self, histogram: Metric, reference: Metric, labels: dict[str, str]) -> None:
        # Not HistogramMetricFamily, which leaves out count and sum where an edge is below 0, as in HU.
        counts = list(accumulate(self._counts))
        for le, count, share in zip(self.les, counts, self.reference, strict=True):
            histogram.add_sample(f"{histogram.name}_bucket", {**labels, "le": le}, count)
            reference.add_sample(reference.name, {**labels, "le": le}, share)
        histogram.add_sample(f"{histogram.name}_count", labels, counts[-1])
        histogram.add_sample(f"{histogram.name}_sum", labels, self._sum)


class _Observed:
    """What a version of a model was given, and what it answered."""

    def __init__(self, contract: Contract) -> None:
        self.sha256 = contract.sha256
        reference = contract.reference
        assert reference is not None  # noqa: S101 - others are not observed
        self.level = None if reference.level is None else _Bins(reference.level)
        names = [label.name for label in contract.labels[: len(reference.scores)]]
        self.scores = dict(zip(names, map(_Bins, reference.scores), strict=True))


class _Population(Collector):
    """Levels and scores of each model's two newest versions, in the bins of their references."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._models: dict[str, dict[int, _Observed]] = {}

    def add(self, contract: Contract, levels: Iterable[float], scores: Iterable[Mapping[str, float]]) -> None:
        with self._lock:
            versions = self._models.setdefault(contract.name, {})
            if contract.version not in versions:
                versions[contract.version] = _Observed(contract)
                for old in sorted(versions)[:-_VERSIONS]:
                    del versions[old]
            observed = versions.get(contract.version)
            # A server that is behind, older than the two, or another model by the same name and version.
            if observed is None or observed.sha256 != contract.sha256:
                return
            if observed.level is not None:
                for one in levels:
                    observed.level.add(one)
            for of_image in scores:
                for label, bins in observed.scores.items():
                    bins.add(of_image[label])

    def describe(self) -> Sequence[Metric]:
        return list(_Population().collect())

    def collect(self) -> Iterator[Metric]:
        level = Metric("radserve_input_level", "Level of each input.", "histogram")
        score = Metric("radserve_score", "Each probability.", "histogram")
        level_reference = GaugeMetricFamily("radserve_input_level_reference", "Share of the reference up to le.")
        score_reference = GaugeMetricFamily("radserve_score_reference", "Share of the reference up to le.")
        with self._lock:
            for model, versions in self._models.items():
                for version, observed in versions.items():
                    labels = {"model": model, "version": str(version)}
                    if observed.level is not None:
                        observed.level.tell(level, level_reference, labels)
                    for label, bins in observed.scores.items():
                        bins.tell(score, score_reference, {**labels, "label": label})
        yield from (level, score, level_reference, score_reference)
