"""Parts of a run's measurements.

Times are in seconds, rates per second, latencies those that the caller sees: from
when a request was due (open loop) or sent (closed loop) to its whole answer. All
figures count good answers alone; failures are counted in ``ErrorCount``.
"""

from __future__ import annotations

from radserve.contracts._tensors import Struct

PERCENTILES = (50.0, 90.0, 95.0, 99.0)


class Estimate(Struct, frozen=True, kw_only=True):
    """A figure and its confidence interval.

    Attributes:
        value: The figure.
        low: Lower end of its 95 % interval; None where too little was measured to give one.
        high: Upper end.
    """

    value: float
    low: float | None = None
    high: float | None = None


class Percentile(Struct, frozen=True, kw_only=True):
    """A latency that so many percent of the answers did not exceed.

    Attributes:
        percent: 99.0 is p99.
        latency_s: The latency, with the 95 % interval of order statistics: it assumes no
            distribution, but that answers are independent of each other.
        n: Answers it is taken from.
    """

    percent: float
    latency_s: Estimate
    n: int


class Figures(Struct, frozen=True, kw_only=True):
    """What the reported windows say together.

    Attributes:
        seconds: Their length together.
        windows: How many they are.
        requests: Good answers in them.
        inferences: Inputs that these answered.
        requests_per_s: Good answers per second; the interval is Student's, over the windows.
        inferences_per_s: Inputs answered per second.
        offered_per_s: Requests that were due per second; None of all but the open loop.
        percentiles: p50, p90, p95, p99 and the plan's own, in this order.
        mean_s: Mean latency.
        least_s: Shortest latency.
        most_s: Longest latency.
        histogram: All latencies in microseconds: HdrHistogram's V2 compressed encoding, base64.
    """

    seconds: float
    windows: int
    requests: int
    inferences: int
    requests_per_s: Estimate
    inferences_per_s: Estimate
    offered_per_s: float | None = None
    percentiles: tuple[Percentile, ...]
    mean_s: float
    least_s: float
    most_s: float
    histogram: str


class Window(Struct, frozen=True, kw_only=True):
    """One window, in short; kept of valid and of invalid runs, to see what happened.

    Attributes:
        begin_s: Since the first window began.
        seconds: Its length.
        requests: Good answers.
        inferences: Inputs that these answered.
        failed: Requests that failed.
        due: Requests that were due in it (open loop), or sent (closed loop).
        waiting: Requests due and not answered when it ended.
        p50_s: Of latency; None without answers, as the others.
        p90_s: Of latency.
        p95_s: Of latency.
        p99_s: Of latency.
        percentile_s: The plan's own percentile.
        most_s: Longest latency.
        lag_s: p99 of how late the workers sent what was due (open loop).
        busy: Share of its time that the busiest worker's event loop was at work.
    """

    begin_s: float
    seconds: float
    requests: int
    inferences: int
    failed: int
    due: int
    waiting: int
    p50_s: float | None = None
    p90_s: float | None = None
    p95_s: float | None = None
    p99_s: float | None = None
    percentile_s: float | None = None
    most_s: float | None = None
    lag_s: float | None = None
    busy: float = 0.0


class ErrorCount(Struct, frozen=True, kw_only=True):
    """Requests of the whole run, warm-up included, that failed in one way.

    Attributes:
        type: The error's name in ``radserve.errors``.
        count: How many.
        message: What the first one said.
    """

    type: str
    count: int
    message: str


class ClientCost(Struct, frozen=True, kw_only=True):
    """What the load cost the machine that made it, in the reported windows.

    Attributes:
        workers: Processes that sent.
        cpu_s: Processor time of each of them.
        cpu: Processors that they kept at work together, 1.5 for one and a half.
        busy: Share of its time that the busiest worker's event loop was at work.
        lag_p50_s: Median of how late what was due was sent; None of all but the open loop, as the others.
        lag_p99_s: Its p99.
        lag_share: The largest share that this lateness has of a reported percentile.
    """

    workers: int
    cpu_s: tuple[float, ...]
    cpu: float
    busy: float
    lag_p50_s: float | None = None
    lag_p99_s: float | None = None
    lag_share: float | None = None


class BatchSize(Struct, frozen=True, kw_only=True):
    """Executions of one batch size.

    Attributes:
        size: Inputs in one execution.
        count: How many executions.
        infer_s: Mean time of one in the model.
    """

    size: int
    count: int
    infer_s: float


class Step(Struct, frozen=True, kw_only=True):
    """What Triton's statistics say of a model in the reported windows: of the ensemble itself, or of a step of it.

    Times are means per request, as Triton counts them.

    Attributes:
        model: Its name.
        version: Its version.
        is_ensemble: Whether it is the public model, whose time holds that of its steps.
        requests: Requests that succeeded.
        failed: Requests that failed.
        inferences: Inputs.
        executions: Times that the model ran: fewer than requests where Triton batches.
        total_s: From a request's arrival to its answer, in the server.
        queue_s: Waiting for a free instance, dynamic batching included.
        compute_input_s: Preparing the inputs.
        compute_infer_s: Running the model.
        compute_output_s: Preparing the outputs.
        batch_sizes: Executions by batch size.
    """

    model: str
    version: int
    is_ensemble: bool
    requests: int
    failed: int
    inferences: int
    executions: int
    total_s: float
    queue_s: float
    compute_input_s: float
    compute_infer_s: float
    compute_output_s: float
    batch_sizes: tuple[BatchSize, ...] = ()


class Totals(Struct, frozen=True, kw_only=True):
    """All requests of a run, warm-up and the last ones in flight included.

    Attributes:
        due: Requests that were due (open loop) or sent (closed loop).
        sent: Requests that were sent.
        requests: Good answers.
        inferences: Inputs that these answered.
        failed: Requests that failed.
    """

    due: int = 0
    sent: int = 0
    requests: int = 0
    inferences: int = 0
    failed: int = 0
