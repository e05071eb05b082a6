"""What Triton counted of a model and of the steps of its ensemble."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from radserve._codec._flow import Ask, Flow, ReadConfig, ReadStatistics
from radserve.errors import InferenceFailedError
from radserve.telemetry import one_line

if TYPE_CHECKING:
    from tritonclient.grpc import model_config_pb2, service_pb2

    from radserve._codec._call import CallOptions

_TIMES = ("queue", "compute_input", "compute_infer", "compute_output")
_LATEST = -1


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Counts, and sums of times in ns, since a model was loaded; two of the same model can be added and subtracted.

    Attributes:
        model: Its name.
        version: Its version.
        is_ensemble: Whether it is the public model, not a step of it.
        requests: Those that succeeded.
        failed: Those that failed.
        inferences: Inputs that succeeded.
        executions: Times that the model ran.
        total_ns: Of successful requests in the server.
        queue_ns: Of requests waiting for the model.
        compute_input_ns: Of preparing inputs.
        compute_infer_ns: Of running the model.
        compute_output_ns: Of preparing outputs.
        batch_sizes: By batch size, how often it was run and for how long, in ns.
    """

    model: str
    version: int
    is_ensemble: bool
    requests: int = 0
    failed: int = 0
    inferences: int = 0
    executions: int = 0
    total_ns: int = 0
    queue_ns: int = 0
    compute_input_ns: int = 0
    compute_infer_ns: int = 0
    compute_output_ns: int = 0
    batch_sizes: dict[int, tuple[int, int]] = field(default_factory=dict)

    def __add__(self, other: Statistics) -> Statistics:
        return self._with(other, 1)

    def __sub__(self, other: Statistics) -> Statistics:
        return self._with(other, -1)

    def _with(self, other: Statistics, sign: int) -> Statistics:
        named: dict[str, Any] = {"model": self.model, "version": self.version, "is_ensemble": self.is_ensemble}
        counts: dict[str, Any] = {
            one.name: getattr(self, one.name) + sign * getattr(other, one.name)
            for one in fields(self)
            if one.name not in {*named, "batch_sizes"}
        }
        sizes = {}
        for size in sorted({*self.batch_sizes, *other.batch_sizes}):
            (count, ns), (more, more_ns) = self.batch_sizes.get(size, (0, 0)), other.batch_sizes.get(size, (0, 0))
            sizes[size] = count + sign * more, ns + sign * more_ns
        return Statistics(**named, **counts, batch_sizes={size: sum_ for size, sum_ in sizes.items() if sum_[0]})


def statistics_flow(name: str, version: int, call: CallOptions) -> Flow[tuple[Statistics, ...]]:
    """The statistics of a public model and of its steps, in their order, all of the call's servers together.

    Args:
        name: The public model's name.
        version: Its version.
        call: The options.

    Raises:
        UnauthenticatedError: A server restricts its statistics.
        ServerError: A server does not tell them.
    """
    told: dict[tuple[str, int], Statistics] = {}
    for endpoint in call.endpoints:
        left_s = call.deadline.remaining_s(name)
        config = yield Ask(call=ReadConfig(model=name, endpoint=endpoint), timeout_s=left_s)
        for model, wanted in ((name, version), *_steps(config.message)):
            left_s = call.deadline.remaining_s(name)
            reply = yield Ask(call=ReadStatistics(model=model, endpoint=endpoint), timeout_s=left_s)
            read = _of(model, wanted, reply.message, is_ensemble=model == name)
            key = model, read.version
            told[key] = told[key] + read if key in told else read
    return tuple(told.values())


def _steps(config: model_config_pb2.ModelConfig) -> list[tuple[str, int]]:
    steps = config.ensemble_scheduling.step
    return list(dict.fromkeys((step.model_name, step.model_version) for step in steps))


def _of(model: str, version: int, versions: list[service_pb2.ModelStatistics], *, is_ensemble: bool) -> Statistics:
    by_version = {int(one.version): one for one in versions if one.name == model}
    read = by_version.get(max(by_version, default=0) if version == _LATEST else version)
    if read is None:
        msg = f"the server has no statistics of model {one_line(model)}, version {version}"
        raise InferenceFailedError(msg, model=model, version=version)
    stats = read.inference_stats
    return Statistics(
        model=model,
        version=int(read.version),
        is_ensemble=is_ensemble,
        requests=stats.success.count,
        failed=stats.fail.count,
        inferences=read.inference_count,
        executions=read.execution_count,
        total_ns=stats.success.ns,
        batch_sizes={int(one.batch_size): (one.compute_infer.count, one.compute_infer.ns) for one in read.batch_stats},
        **{f"{time}_ns": getattr(stats, time).ns for time in _TIMES},
    )
