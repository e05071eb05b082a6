"""What is asked of a run: how requests are sent, for how long, and when it is over."""

from __future__ import annotations

import math
from enum import Enum
from typing import TYPE_CHECKING

from radserve.contracts._tensors import Struct
from radserve.errors import InputError

if TYPE_CHECKING:
    from radserve.contracts import Contract

_MOST = 65_536
_OFFLINE_IN_FLIGHT = 16
_STREAMS = 8  # samples of a query in MLPerf's multi-stream scenario


class Scenario(str, Enum):
    """How requests are sent: MLPerf Inference's scenarios (Reddi et al., ISCA 2020), and the closed loop.

    SINGLE_STREAM: one input at a time, the next when the answer is there.
    MULTI_STREAM: several inputs in one request, one request at a time.
    SERVER: requests at random times (a Poisson process) of a given rate, whether or not the earlier ones
        are answered: an open loop. Latency counts from when a request was due.
    OFFLINE: as many inputs as the server can take. Unlike MLPerf's single query of all inputs, requests of
        the largest batch are kept in flight, so that memory is bounded and windows can be compared.
    CLOSED_LOOP: a fixed number of requests in flight.
    """

    SINGLE_STREAM = "single-stream"
    MULTI_STREAM = "multi-stream"
    SERVER = "server"
    OFFLINE = "offline"
    CLOSED_LOOP = "closed-loop"


# The percentile that MLPerf judges a scenario by; offline and closed loop have none there.
_PERCENTILE = {
    Scenario.SINGLE_STREAM: 90.0,
    Scenario.MULTI_STREAM: 99.0,
    Scenario.SERVER: 99.0,
    Scenario.OFFLINE: 50.0,
    Scenario.CLOSED_LOOP: 95.0,
}


class Plan(Struct, frozen=True, kw_only=True):
    """One load on one model; ``Plan.of`` fills in what a scenario implies.

    Attributes:
        scenario: How requests are sent.
        concurrency: Requests in flight, over all workers; of SERVER the most that may be before
            further ones wait (their latency goes on counting).
        rate: Requests per second that are due, of SERVER alone.
        inputs_per_request: Batch size: rows of the batch axis.
        percentile: The latency that must be stable, in percent: 99.0 is p99.
        warm_up_s: Answers of the first seconds do not count.
        window_s: Length of a measurement window.
        windows: So many windows in a row must agree.
        tolerance: Relative distance from their mean that throughput and percentile may have.
        longest_s: Without agreement, measure no longer than this.
        duration_s: Measure exactly this long and report all of it, agreement or not; None stops at agreement.
        workers: Processes that send.
        seed: Of arrival times and synthetic inputs.
        priority: Triton's priority level; None leaves the model's default.
        timeout_s: The longest that one answer may take.
    """

    scenario: Scenario
    concurrency: int = 1
    rate: float | None = None
    inputs_per_request: int = 1
    percentile: float = 95.0
    warm_up_s: float = 2.0
    window_s: float = 5.0
    windows: int = 3
    tolerance: float = 0.10
    longest_s: float = 60.0
    duration_s: float | None = None
    workers: int = 1
    seed: int = 0
    priority: int | None = None
    timeout_s: float = 30.0

    def __post_init__(self) -> None:
        """Refuse what cannot be run; decoding a report that holds it fails, too."""
        is_server, rate = self.scenario is Scenario.SERVER, self.rate
        counts = self.concurrency, self.inputs_per_request
        times = self.window_s, self.longest_s, self.timeout_s, self.budget_s
        too_short = self.budget_s < self.windows * self.window_s * (1 - 1e-9)
        wrong = (
            (is_server and rate is None, "the server scenario needs a rate, in requests per second (--rate)"),
            (
                not is_server and rate is not None,
                f"a rate belongs to the server scenario, not to {self.scenario.value}",
            ),
            (rate is not None and not 0 < rate < math.inf, "the rate must be a number of requests per second above 0"),
            (not all(1 <= one <= _MOST for one in counts), f"concurrency and batch must be from 1 to {_MOST}"),
            (not 0 < self.percentile < 100, "the percentile must be between 0 and 100, for example 99"),  # noqa: PLR2004 - percent
            (not all(0 < one < math.inf for one in times), "times must be finite numbers of seconds above 0"),
            (not 0 <= self.warm_up_s < math.inf, "the warm-up must be a finite number of seconds"),
            (self.windows < 1 or not 0 < self.tolerance < math.inf, "the tolerance must be a number above 0"),
            (too_short, f"{self.windows} windows of {self.window_s:g} s take longer than {self.budget_s:g} s"),
            (not 1 <= self.workers <= self.concurrency, "give from 1 worker to one for each request in flight"),
        )
        problem = next((told for is_so, told in wrong if is_so), None)
        if problem:
            raise InputError(problem)

    @classmethod
    def of(cls, scenario: Scenario, contract: Contract, **given: object) -> Plan:
        """A plan with the scenario's own values where none are given.

        Args:
            scenario: Which.
            contract: Of the model; its largest batch bounds a request.
            **given: Attributes of this class; None counts as not given.

        Raises:
            InputError: They make no plan, or none for this model.
        """
        wanted = {name: value for name, value in given.items() if value is not None}
        most = max(1, contract.max_batch_size)
        fixed: dict[str, object] = {}
        usual: dict[str, object] = {"percentile": _PERCENTILE[scenario]}
        if scenario in (Scenario.SINGLE_STREAM, Scenario.MULTI_STREAM):
            fixed = {"concurrency": 1, "workers": 1}
        if scenario is Scenario.SINGLE_STREAM:
            fixed["inputs_per_request"] = 1
        elif scenario is Scenario.MULTI_STREAM:
            usual["inputs_per_request"] = min(_STREAMS, most)
        elif scenario is Scenario.OFFLINE:
            usual |= {"inputs_per_request": most, "concurrency": _OFFLINE_IN_FLIGHT}
        elif scenario is Scenario.SERVER:
            usual["concurrency"] = 1024
        for name, value in fixed.items():
            if wanted.get(name, value) != value:
                msg = f"{name.replace('_', ' ')} is {value} in the {scenario.value} scenario: leave it out"
                raise InputError(msg)
        made: dict[str, object] = {"scenario": scenario, **usual, **wanted, **fixed}
        if "duration_s" in wanted:
            made["window_s"] = min(_seconds(made.get("window_s", 5.0)), _seconds(wanted["duration_s"]) / 3)
        plan = cls(**made)  # type: ignore[arg-type] # refused above where it is not
        if plan.inputs_per_request > most:
            msg = f"model {contract.name} takes at most {most} inputs in one request"
            raise InputError(msg)
        return plan

    @property
    def budget_s(self) -> float:
        """The longest that is measured, warm-up excluded."""
        return self.longest_s if self.duration_s is None else self.duration_s


def _seconds(value: object) -> float:
    return float(value)  # type: ignore[arg-type] # a number, or __post_init__ refuses it
