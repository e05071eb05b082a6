"""Reports of load tests, made of latencies that are drawn instead of measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec.structs import replace

from radserve.loadtest import Ending, Inputs, Plan, Report, Run, Scenario, Step
from radserve.loadtest._figures import BatchSize, ErrorCount, Totals
from radserve.loadtest._judge import cost_of, figures_of
from radserve.loadtest._report import Machine
from radserve.loadtest._windows import Merged

if TYPE_CHECKING:
    from collections.abc import Sequence

PLAN = Plan(scenario=Scenario.CLOSED_LOOP, concurrency=8, workers=2)
HOSTILE = "<script>alert('x')</script> & $\\frac{ \x1b[31m\u202e"
_STEP = Step(
    model="chest_xray",
    version=3,
    is_ensemble=True,
    requests=900,
    failed=0,
    inferences=900,
    executions=900,
    total_s=0.0123,
    queue_s=0.00001,
    compute_input_s=0.0011,
    compute_infer_s=0.0077,
    compute_output_s=0.0009,
)


def run_of(
    plan: Plan = PLAN, *, windows: int = 5, requests: int = 300, latency_s: float = 0.02, seed: int = 0, **given: Any
) -> Run:
    """A run whose latencies are log-normal; its last three windows are the reported ones."""
    rng = np.random.default_rng(seed)
    kept, lines = Merged(), []
    for number in range(windows):
        one = Merged()
        one.seconds, one.requests, one.due = plan.window_s, requests, requests
        one.latencies.record(rng.lognormal(np.log(latency_s), 0.4, requests).tolist())
        one.cpu_s, one.busy_s = dict.fromkeys(range(plan.workers), 1.25), dict.fromkeys(range(plan.workers), 1.5)
        lines.append(one.window(plan, number * plan.window_s))
        if number >= windows - plan.windows:
            kept.add(one)
    step = replace(
        _STEP,
        model="chest_xray_pipeline",
        is_ensemble=False,
        executions=400,
        queue_s=0.0021,
        batch_sizes=tuple(BatchSize(size=size, count=40 * size, infer_s=0.001 * size) for size in (1, 2, 4)),
    )
    made: dict[str, Any] = {
        "plan": plan,
        "ending": Ending.STABLE,
        "figures": figures_of(kept, lines[-plan.windows :], plan),
        "is_stable": True,
        "client": cost_of(kept, plan),
        "steps": (_STEP, step),
        "totals": Totals(due=2000, sent=1999, requests=1990, inferences=1990, failed=7),
        "windows": tuple(lines),
    }
    return Run(**made | given)


def report_of(runs: Sequence[Run] = (), **given: Any) -> Report:
    """A report of these runs, or of an ordinary one."""
    made: dict[str, Any] = {
        "began": "2026-03-01T12:00:00+00:00",
        "model": "chest_xray",
        "version": 3,
        "contract_sha256": "0123456789abcdef" * 4,
        "servers": ("127.0.0.1:8001",),
        "machine": Machine(processor="EPYC", processors=2, system="Linux 6", python="3.11.2", radserve="0.1.0"),
        "inputs": Inputs(is_synthetic=True, count=16, requests=16, bytes_per_request=869),
        "runs": tuple(runs) or (run_of(),),
    }
    return Report(**made | given)


def errors(message: str = "the server is overloaded") -> tuple[ErrorCount, ...]:
    """Failures of two types."""
    return (
        ErrorCount(type="ServerOverloadedError", count=6, message=message),
        ErrorCount(type="DeadlineExceededError", count=1, message="no answer within 5 s"),
    )


def invalid_run(plan: Plan = PLAN) -> Run:
    """A run that the load generator could not sustain."""
    return replace(run_of(plan), figures=None, invalid=("a worker's event loop was at work 97% of the time",))
