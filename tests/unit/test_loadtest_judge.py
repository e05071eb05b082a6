"""What makes a run stable, valid, reached; and reports as JSON."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace
from support.loads import run_of
from support.sdk_contracts import IMAGE, TEXT, WAVEFORM, contract

from radserve.contracts import Contract, Datatype, Task, TensorSpec
from radserve.errors import InputError
from radserve.loadtest import (
    Ending,
    Inputs,
    Plan,
    Report,
    Run,
    Scenario,
    Window,
    dump_report,
    parse_report,
    payloads_of,
    rows_of,
    synthetic,
    this_machine,
)
from radserve.loadtest._figures import ClientCost, ErrorCount, Totals
from radserve.loadtest._judge import (
    cost_of,
    figures_of,
    is_stable,
    not_answered,
    not_reached,
    not_stable,
    not_sustained,
)
from radserve.loadtest._windows import Merged
from radserve.loadtest._words import server_share_of

CONTRACT = contract()
CLOSED = Plan(scenario=Scenario.CLOSED_LOOP, concurrency=4, workers=2)
OPEN = Plan(scenario=Scenario.SERVER, rate=100.0, concurrency=1024, percentile=99.0)


def window(requests: int = 500, percentile_s: float | None = 0.05, due: int | None = None) -> Window:
    return Window(
        begin_s=0,
        seconds=5,
        requests=requests,
        inferences=requests,
        failed=0,
        due=requests if due is None else due,
        waiting=0,
        percentile_s=percentile_s,
    )


def merged(requests: int = 1000, *, busy_s: float = 1.0, lag_s: float = 0.0001, due: int | None = None) -> Merged:
    made = Merged()
    made.seconds, made.requests, made.due = 10.0, requests, requests if due is None else due
    latencies = np.linspace(0.01, 0.05, requests)
    made.latencies.record(latencies.tolist())
    made.lags.record([lag_s] * requests)
    made.punctual.record((latencies - lag_s).tolist())
    made.cpu_s, made.busy_s = {0: 1.5, 1: 0.5}, {0: busy_s, 1: 0.1}
    return made


@pytest.mark.parametrize(
    ("windows", "stable"),
    [
        ([window()] * 3, True),
        ([window()] * 2, False),
        ([window(900, 0.9), *[window()] * 3], True),
        ([window(400), window(500), window(600)], False),
        ([window(500, 0.04), window(500, 0.05), window(500, 0.06)], False),
        ([window(0, None)] * 3, False),
    ],
)
def test_the_last_three_windows_must_agree(windows: list[Window], *, stable: bool) -> None:
    assert is_stable(windows, CLOSED) is stable


def test_in_an_open_loop_the_share_of_answered_requests_must_agree() -> None:
    by_chance = [window(400, due=400), window(500, due=500), window(600, due=600)]
    assert is_stable(by_chance, OPEN)
    assert not is_stable([window(400, due=500), window(500, due=500), window(500, due=500)], OPEN)


def test_of_offline_the_throughput_alone_must_agree() -> None:
    plan = msgspec.structs.replace(CLOSED, scenario=Scenario.OFFLINE)
    assert is_stable([window(500, 0.01), window(500, 0.05), window(500, 0.09)], plan)


def test_disagreement_is_told_in_figures() -> None:
    told = not_stable([window(400, 0.04), window(500, 0.05), window(600, None)], CLOSED)
    assert told == ("the last 3 windows do not agree within 10%: throughput 80.0 to 120.0/s, p95 40.0 to 50.0 ms")


def test_disagreement_of_an_open_loop_is_told_in_shares() -> None:
    told = not_stable([window(400, due=800), window(500, due=500), window(600, due=600)], OPEN)
    assert told.endswith(": answered 50% to 100% of what was due, p99 50.0 to 50.0 ms")


def test_figures_are_of_all_windows_together() -> None:
    figures = figures_of(merged(), [window(490), window(510)], msgspec.structs.replace(CLOSED, inputs_per_request=4))
    assert figures is not None
    assert (figures.requests, figures.inferences, figures.windows) == (1000, 4000, 2)
    assert (figures.requests_per_s.value, figures.inferences_per_s.value) == (100, 400)
    assert figures.requests_per_s.low == pytest.approx(100 - 12.706 * 2)
    assert [one.percent for one in figures.percentiles] == [50, 90, 95, 99]
    assert figures.percentiles[0].latency_s.value == pytest.approx(0.03, rel=2e-3)
    assert (figures.least_s, figures.most_s) == pytest.approx((0.01, 0.05), rel=1e-3)


def test_there_are_no_figures_without_an_answer() -> None:
    assert figures_of(Merged(), [], CLOSED) is None


@pytest.mark.parametrize(
    ("plan", "given", "reason"),
    [
        (CLOSED, {"busy_s": 8.9}, None),
        (CLOSED, {"busy_s": 9.2}, "a worker's event loop was at work 92% of the time"),
        (OPEN, {"lag_s": 0.0055}, None),
        (
            OPEN,
            {"lag_s": 0.0065},
            "requests were sent late by the load generator (p99 6.5 ms; up to 22% of a percentile",
        ),
        (CLOSED, {"lag_s": 0.5}, None),
    ],
)
def test_a_run_that_the_generator_could_not_sustain_is_none(
    plan: Plan, given: dict[str, Any], reason: str | None
) -> None:
    made = merged(**given)
    figures = figures_of(made, [window()] * 2, plan)
    assert figures is not None
    reasons = not_sustained(figures, cost_of(made, plan))
    assert [one[: len(reason or "")] for one in reasons] == ([reason] if reason else [])


def late(lags_s: dict[float, int], latency_s: float, spread: float = 0.2) -> Merged:
    """So many requests each that were so late, which the server answered after about the same time."""
    made = Merged()
    made.seconds = 10.0
    lags = np.repeat(list(lags_s), list(lags_s.values()))
    punctual = latency_s * np.random.default_rng(0).lognormal(0, spread, lags.size)
    for histogram, times in ((made.lags, lags), (made.punctual, punctual), (made.latencies, punctual + lags)):
        histogram.record(times.tolist())
    return made


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        pytest.param(late({0.0002: 980, 0.003: 20}, 0.012), None, id="a few, by a quarter of an answer"),
        pytest.param(late({0.0002: 999, 0.5: 1}, 0.012), None, id="one, by much"),
        pytest.param(late({0.0009: 1000}, 0.001), None, id="by what waking up takes"),
        pytest.param(late({0.0002: 900, 0.01: 100}, 0.012), "of a percentile, most allowed: 20%", id="many"),
        pytest.param(late({0.004: 1000}, 0.012), "up to 25% of a percentile, most allowed: 20%", id="all"),
        pytest.param(late({0.0002: 980, 0.015: 20}, 0.012, 1), "(p99 15.0 ms, most allowed: the median", id="stalls"),
    ],
)
def test_lateness_counts_by_what_it_adds_to_the_figures(made: Merged, reason: str | None) -> None:
    figures = figures_of(made, [window()] * 2, OPEN)
    assert figures is not None
    told = " ".join(not_sustained(figures, cost_of(made, OPEN)))
    assert (reason in told) if reason else not told, told


@pytest.mark.parametrize(("requests", "due", "reached"), [(960, 1000, True), (940, 1000, False)])
def test_a_rate_that_is_not_reached_is_told(requests: int, due: int, *, reached: bool) -> None:
    figures = figures_of(merged(requests, due=due), [window()] * 2, OPEN)
    assert figures is not None
    told = not_reached(figures)
    assert (told is None) is reached
    assert told is None or "94.0 of 100.0 requests/s" in told


@pytest.mark.parametrize(
    ("windows", "failed", "told"),
    [
        ([window()] * 3, 0, []),
        ([window()] * 3, 1, []),
        ([window()] * 3, 20, ["2.0% of the requests failed, which the figures leave out"]),
        ([replace(window(), requests=0, waiting=0)], 0, []),
        (
            [window(), replace(window(), requests=0, waiting=1)],
            0,
            ["no answer came in 1 of the 2 windows, though requests were waiting"],
        ),
    ],
)
def test_what_figures_of_good_answers_leave_out_is_told(windows: list[Window], failed: int, told: list[str]) -> None:
    assert not_answered(windows, Totals(sent=1000, requests=1000 - failed, failed=failed)) == told


@pytest.mark.parametrize(("mean_s", "is_told"), [(0.0124, True), (0.0122, False)])
def test_the_server_has_no_more_than_all_of_the_latency(mean_s: float, *, is_told: bool) -> None:
    run = run_of()
    assert run.figures is not None
    assert run.steps[0].total_s == 0.0123
    assert (server_share_of(replace(run, figures=replace(run.figures, mean_s=mean_s))) is not None) is is_told


def test_cost_counts_each_worker() -> None:
    cost = cost_of(merged(busy_s=3.0), CLOSED)
    assert (*cost.cpu_s, cost.cpu, cost.busy) == pytest.approx((1.5, 0.5, 0.2, 0.3))
    assert cost.lag_p99_s is None
    assert cost_of(merged(), OPEN).lag_p99_s == pytest.approx(0.0001, rel=0.01)


def test_merged_windows_add_up_but_for_what_waits_at_the_end() -> None:
    first, second = merged(100), merged(200)
    first.waiting, second.waiting = 7, 3
    first.add(second)
    assert (first.seconds, first.requests, first.waiting, first.latencies.n) == (20, 300, 3, 300)
    assert first.cpu_s == {0: 3.0, 1: 1.0}


def a_report() -> Report:
    figures = figures_of(merged(), [window()] * 2, CLOSED)
    run = Run(
        plan=CLOSED,
        ending=Ending.STABLE,
        figures=figures,
        is_stable=True,
        client=ClientCost(workers=2, cpu_s=(1.0, 1.0), cpu=0.2, busy=0.3),
        errors=(ErrorCount(type="InferenceFailedError", count=2, message="no"),),
        totals=Totals(sent=1002, requests=1000, failed=2),
        windows=(window(),),
    )
    return Report(
        began="2026-01-01T00:00:00+00:00",
        model="demo",
        version=3,
        contract_sha256="0" * 64,
        servers=("a:1",),
        machine=this_machine(),
        inputs=Inputs(is_synthetic=True, count=1, requests=1, bytes_per_request=100),
        runs=(run,),
    )


def test_a_report_survives_json() -> None:
    report = a_report()
    assert parse_report(dump_report(report)) == report


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"schema_version": 2}, "the report has schema version 2, this radserve reads up to 1"),
        ({"schema_version": 0}, "this is no report of radserve loadtest"),
        ({"model": 3}, "this is no report of radserve loadtest"),
        ({"surprise": 1}, "this is no report of radserve loadtest"),
    ],
)
def test_what_is_no_report_is_refused(change: dict[str, Any], reason: str) -> None:
    plain = msgspec.json.decode(dump_report(a_report())) | change
    with pytest.raises(InputError, match=reason):
        parse_report(msgspec.json.encode(plain))


@pytest.mark.parametrize(
    ("scenario", "given", "expected"),
    [
        (Scenario.SINGLE_STREAM, {}, (1, 1, 90.0)),
        (Scenario.MULTI_STREAM, {}, (1, 8, 99.0)),
        (Scenario.SERVER, {"rate": 5.0}, (1024, 1, 99.0)),
        (Scenario.OFFLINE, {}, (16, 8, 50.0)),
        (Scenario.CLOSED_LOOP, {"concurrency": 3, "percentile": 99.0}, (3, 1, 99.0)),
    ],
)
def test_a_scenario_implies_what_mlperf_says(
    scenario: Scenario, given: dict[str, Any], expected: tuple[int, int, float]
) -> None:
    plan = Plan.of(scenario, contract(max_batch_size=8), **given)
    assert (plan.concurrency, plan.inputs_per_request, plan.percentile) == expected


@pytest.mark.parametrize(
    ("scenario", "given", "reason"),
    [
        (Scenario.SERVER, {}, r"needs a rate, .*\(--rate\)"),
        (Scenario.CLOSED_LOOP, {"rate": 5.0}, "a rate belongs to the server scenario, not to closed-loop"),
        (Scenario.SERVER, {"rate": float("nan")}, "the rate must be a number"),
        (Scenario.SINGLE_STREAM, {"concurrency": 2}, "concurrency is 1 in the single-stream scenario"),
        (Scenario.CLOSED_LOOP, {"inputs_per_request": 99}, "takes at most 8 inputs in one request"),
        (Scenario.CLOSED_LOOP, {"percentile": 100.0}, "the percentile must be between"),
        (Scenario.CLOSED_LOOP, {"workers": 2}, "give from 1 worker"),
        (Scenario.CLOSED_LOOP, {"longest_s": 9.0}, "3 windows of 5 s take longer than 9 s"),
        (Scenario.CLOSED_LOOP, {"window_s": float("inf")}, "times must be finite"),
    ],
)
def test_what_cannot_be_run_is_refused(scenario: Scenario, given: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        Plan.of(scenario, contract(max_batch_size=8), **given)


def test_a_duration_is_cut_into_windows_that_fit() -> None:
    plan = Plan.of(Scenario.CLOSED_LOOP, CONTRACT, duration_s=6.0)
    assert (plan.window_s, plan.budget_s) == (2.0, 6.0)
    assert Plan.of(Scenario.CLOSED_LOOP, CONTRACT, duration_s=3600.0).window_s == 5.0


@pytest.mark.parametrize("described", [IMAGE, WAVEFORM, TEXT])
def test_synthetic_inputs_are_of_the_contract_and_repeat_with_the_seed(described: Any) -> None:
    made = contract(described)
    tensor = made.inputs[0]
    first, again, other = (synthetic(made, seed) for seed in (1, 1, 2))
    for row in first:
        assert row[tensor.name].dtype == tensor.dtype.numpy
        assert row[tensor.name].shape == (1, *tensor.dims)
    assert all((one[tensor.name] == two[tensor.name]).all() for one, two in zip(first, again, strict=True))
    assert not all((one[tensor.name] == two[tensor.name]).all() for one, two in zip(first, other, strict=True))


def tensors_contract(max_batch_size: int) -> Contract:
    x = TensorSpec(name="X", dtype=Datatype.FP32, dims=(-1, 2))
    ids = TensorSpec(name="IDS", dtype=Datatype.INT64, dims=(3,))
    return Contract(
        name="raw",
        version=1,
        task=Task.TENSORS,
        inputs=(x, ids),
        outputs=(x,),
        max_batch_size=max_batch_size,
        model_sha256="0" * 64,
        exporter_version="1",
    )


def test_integers_that_may_be_places_in_a_table_are_0() -> None:
    rows = synthetic(tensors_contract(0), 0)
    assert rows[0]["X"].shape == (16, 2)
    assert rows[0]["IDS"].tolist() == [0, 0, 0]


def test_every_input_is_in_as_many_requests_as_every_other() -> None:
    described = tensors_contract(8)
    rows: list[Any] = [{"X": np.full((1, 4, 2), k, np.float32), "IDS": np.full((1, 3), k)} for k in range(10)]
    payloads = payloads_of(described, rows, 4)
    numbers = np.concatenate([payload["IDS"][:, 0] for payload in payloads])
    assert np.bincount(numbers).tolist() == [2] * 10
    assert all((payload["X"][:, 0, 0] == payload["IDS"][:, 0]).all() for payload in payloads)


def test_inputs_of_different_shapes_share_no_request() -> None:
    rows: list[Any] = [{"X": np.zeros((1, length, 2), np.float32), "IDS": np.zeros((1, 3))} for length in (4, 4, 7)]
    assert sorted(payload["X"].shape for payload in payloads_of(tensors_contract(8), rows, 2)) == [(2, 4, 2), (2, 7, 2)]


def test_a_model_without_batch_axis_takes_one_input_at_a_time() -> None:
    with pytest.raises(InputError, match="has no batch axis"):
        payloads_of(tensors_contract(0), synthetic(tensors_contract(0), 0), 2)


def test_a_study_gives_an_input_for_each_image_and_no_more_than_memory_holds() -> None:
    study = {"X": np.zeros((3, 4, 2), np.float32), "IDS": np.arange(9).reshape(3, 3)}
    rows = rows_of(tensors_contract(8), [study])
    assert [row["IDS"].tolist() for row in rows] == [[[0, 1, 2]], [[3, 4, 5]], [[6, 7, 8]]]
    large: Any = ({"X": np.zeros((1, 2**22, 2), np.float32), "IDS": np.zeros((1, 3))} for _ in range(100))
    assert len(rows_of(tensors_contract(8), large)) == 2
