"""From windows to figures, and whether these measure the server or the load generator. Pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from radserve.loadtest._figures import PERCENTILES, ClientCost, Estimate, Figures
from radserve.loadtest._plan import Scenario
from radserve.loadtest._statistics import agree, mean_of, percentile, rank_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from radserve.loadtest._figures import Totals, Window
    from radserve.loadtest._plan import Plan
    from radserve.loadtest._windows import Merged

REACHED = 0.95  # of the requests that were due
FAILED = 0.001  # of the requests; from there on, figures of good answers alone mislead
MOST_BUSY = 0.90  # of the time; above, answers wait for the worker's event loop, which counts as latency
_LEAST_LAG_S = 0.001  # what the kernel and the event loop need to wake up
_MOST_LAG = 0.20  # of a percentile: its middle, with and without, is then within 10 % of both


def is_stable(windows: Sequence[Window], plan: Plan) -> bool:
    """Whether the last windows agree in throughput and in the plan's percentile (of offline, in throughput alone).

    Of an open loop, how many requests come in a window is chance: what counts is the share that was answered.
    """
    last = windows[-plan.windows :]
    if len(last) < plan.windows:
        return False
    is_open = plan.rate is not None
    rates = [window.requests / (max(1, window.due) if is_open else window.seconds) for window in last]
    percentiles = [window.percentile_s for window in last]
    is_offline = plan.scenario is Scenario.OFFLINE
    return agree(rates, plan.tolerance) and (is_offline or agree(percentiles, plan.tolerance))


def figures_of(merged: Merged, windows: Sequence[Window], plan: Plan) -> Figures | None:
    """What windows say together; None without a good answer.

    Args:
        merged: All of them.
        windows: Each of them, for the interval of the throughput.
        plan: What was asked.
    """
    n = merged.latencies.n
    if not n:
        return None
    spread = mean_of([window.requests / window.seconds for window in windows])
    rate = merged.requests / merged.seconds
    shift = rate - spread.value  # of windows of unlike length
    low, high = (None if end is None else max(0.0, end + shift) for end in (spread.low, spread.high))
    inputs = plan.inputs_per_request
    least_s, most_s = merged.latencies.at_ranks([1, n])
    return Figures(
        seconds=merged.seconds,
        windows=len(windows),
        requests=merged.requests,
        inferences=merged.requests * inputs,
        requests_per_s=Estimate(value=rate, low=low, high=high),
        inferences_per_s=Estimate(
            value=rate * inputs,
            low=None if low is None else low * inputs,
            high=None if high is None else high * inputs,
        ),
        offered_per_s=None if plan.rate is None else merged.due / merged.seconds,
        percentiles=tuple(percentile(merged.latencies, one) for one in sorted({*PERCENTILES, plan.percentile})),
        mean_s=merged.latencies.mean(),
        least_s=least_s,
        most_s=most_s,
        histogram=merged.latencies.encode().decode(),
    )


def cost_of(merged: Merged, plan: Plan) -> ClientCost:
    """What windows cost the client."""
    lags = merged.lags
    is_open = plan.rate is not None and lags.n > 0
    told = lags.at_ranks([rank_of(lags.n, 50), rank_of(lags.n, 99)]) if is_open else None
    cpu_s = tuple(seconds for _, seconds in sorted(merged.cpu_s.items()))
    return ClientCost(
        workers=plan.workers,
        cpu_s=cpu_s,
        cpu=sum(cpu_s) / merged.seconds if merged.seconds else 0.0,
        busy=merged.busy,
        lag_p50_s=told[0] if told else None,
        lag_p99_s=told[1] if told else None,
        lag_share=_lag_share(merged, plan) if told else None,
    )


def _lag_share(merged: Merged, plan: Plan) -> float:
    """The largest share of a percentile that goes away with the lateness of each request; 0 of what is too short."""
    n = merged.latencies.n
    ranks = [rank_of(n, percent) for percent in {*PERCENTILES, plan.percentile}] if n else []
    pairs = zip(merged.latencies.at_ranks(ranks), merged.punctual.at_ranks(ranks), strict=True)
    return max((1 - without / total for total, without in pairs if total - without > _LEAST_LAG_S), default=0.0)


def not_sustained(figures: Figures, cost: ClientCost) -> tuple[str, ...]:
    """Why figures measure the load generator instead of the server; nothing where they do not.

    In an open loop the latency from when a request was due is at least what a punctual generator would have
    measured; what it is without each request's own lateness is at most that, as long as no late ones have left a
    queue behind. So both must be close together, and lateness (p99) shorter than a usual answer. MLPerf's LoadGen
    also counts from the time due, and charges all lateness to the server; perf_analyzer counts from the sending,
    and warns when 1 % of the requests could not be sent on time.
    """
    reasons = []
    if cost.busy > MOST_BUSY:
        reasons.append(
            f"a worker's event loop was at work {cost.busy:.0%} of the time (most allowed: {MOST_BUSY:.0%}), so that"
            f" answers waited for it: use more than {cost.workers} --workers, or another machine"
        )
    if cost.lag_p99_s is None or cost.lag_share is None:
        return tuple(reasons)
    median_s = max(_LEAST_LAG_S, figures.percentiles[0].latency_s.value)
    late = f"p99 {1e3 * cost.lag_p99_s:.1f} ms"
    late += f", most allowed: the median latency, {1e3 * median_s:.1f} ms" if cost.lag_p99_s > median_s else ""
    share = f"; up to {cost.lag_share:.0%} of a percentile, most allowed: {_MOST_LAG:.0%}"
    late += share if cost.lag_share > _MOST_LAG else ""
    if cost.lag_p99_s > median_s or cost.lag_share > _MOST_LAG:
        reasons.append(
            f"requests were sent late by the load generator ({late}):"
            " use more --workers, a lower --rate, or another machine than the server's"
        )
    return tuple(reasons)


def not_reached(figures: Figures) -> str | None:
    """One line where the server did not keep up with the offered rate."""
    offered, achieved = figures.offered_per_s, figures.requests_per_s.value
    if offered is None or achieved >= REACHED * offered:
        return None
    return (
        f"the rate was not reached: {achieved:.1f} of {offered:.1f} requests/s that were due were answered well,"
        " so that latencies only tell for how long the run went on"
    )


def not_answered(windows: Sequence[Window], totals: Totals) -> list[str]:
    """What figures of good answers leave out, a line each."""
    told = []
    if totals.failed > FAILED * totals.sent:
        share = totals.failed / max(1, totals.sent)
        told.append(f"{share:.1%} of the requests failed, which the figures leave out")
    if silent := sum(not window.requests and window.waiting > 0 for window in windows):
        told.append(f"no answer came in {silent} of the {len(windows)} windows, though requests were waiting")
    return told


def not_stable(windows: Sequence[Window], plan: Plan) -> str:
    """One line about windows that do not agree."""
    last = windows[-plan.windows :]
    if plan.rate is None:
        rates = [window.requests / window.seconds for window in last]
        told = f"throughput {min(rates):.1f} to {max(rates):.1f}/s" if rates else "no whole window"
    else:
        shares = [window.requests / max(1, window.due) for window in last]
        told = f"answered {min(shares):.0%} to {max(shares):.0%} of what was due" if shares else "no whole window"
    tails = [window.percentile_s for window in last if window.percentile_s is not None]
    if tails:
        told += f", p{plan.percentile:g} {1e3 * min(tails):.1f} to {1e3 * max(tails):.1f} ms"
    return f"the last {len(last)} windows do not agree within {plan.tolerance:.0%}: {told}"
