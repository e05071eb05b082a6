"""The report's pictures, each an SVG element for a page. Latencies are in milliseconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from radserve.loadtest._histogram import Histogram
from radserve.loadtest._svg import FAINT, INK, SERIES, SHADE, picture
from radserve.loadtest._words import PARTS, parts_of, percentile_of, short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from radserve.loadtest._figures import Figures, Step, Window
    from radserve.loadtest._report import Run, Search

_MS = 1e3
_BINS = 48
_WIDE = 25.0  # of the largest to the least latency; above, small ones need a logarithmic axis to be seen
_DASHES = ("-", "--", "-.", ":")
_MARKERS = ("o", "s", "^", "D")
_DENSE = 300.0  # of the ends of a logarithmic axis; below, powers of ten are too few numbers on it
_NUMBERED = 16  # bars that have room for a number each


def _shown(percents: Sequence[float], most: int) -> list[float]:
    return sorted({*percents})[-most:] if len({*percents}) > most else sorted({*percents})


def throughput_latency(key: str, runs: Sequence[Run], search: Search | None) -> str:
    """Latency over the throughput that it was had at, a point for each run with figures."""
    points = [(run.plan, run.figures) for run in runs if run.figures is not None]
    points.sort(key=lambda point: (point[0].rate or point[0].concurrency, point[1].inferences_per_s.value))
    judged = points[0][0].percentile if points else 50.0
    description = f"{len(points)} loads; the table of runs has the same numbers."
    with picture(key, "Throughput against latency", description, height=3.4) as drawn:
        (axes,) = drawn.axes()
        rates = [figures.inferences_per_s.value for _, figures in points]
        for number, percent in enumerate(_shown((50.0, judged, 99.0), 3)):
            tails = [_ms(figures, percent) for _, figures in points]
            style = {"color": SERIES[number], "linestyle": _DASHES[number], "marker": _MARKERS[number]}
            axes.plot(rates, tails, label=f"p{percent:g}", **style)  # type: ignore[arg-type] # of known keys
        for (plan, figures), rate in zip(points, rates, strict=True):
            top = max(_ms(figures, percent) for percent in (50.0, judged, 99.0))
            axes.annotate(
                f"{plan.rate:g}/s" if plan.rate is not None else f"{plan.concurrency}",
                (rate, top),
                xytext=(0, 6),
                textcoords="offset points",
                ha="center",
                fontsize=9,
            )
        if search is not None:
            _line(axes, search.latency_s * _MS, f"p{search.percent:g} allowed")
        _from_zero(axes, [_ms(figures, 99.0) for _, figures in points], [_ms(figures, 50.0) for _, figures in points])
        axes.set_xlim(left=0, right=1.08 * max(rates, default=1.0))
        axes.set_xlabel("inferences per second, achieved (at each point: the load)")
        axes.set_ylabel("latency (ms)")
        _legend(axes)
    return drawn.svg


def over_time(key: str, run: Run) -> str:
    """Throughput and latency of each window."""
    windows, percents = run.windows, (50.0, 95.0, 99.0)
    times = [window.begin_s + window.seconds / 2 for window in windows]
    description = f"{len(windows)} windows; the table of windows has the same numbers."
    with picture(key, "Throughput and latency over time", description, height=3.6) as drawn:
        above, below = drawn.axes(2, heights=(1, 1.6))
        rates = [window.requests / window.seconds for window in windows]
        _series(above, times, rates, 0, "answered")
        if run.plan.rate is not None:
            _series(above, times, [window.due / window.seconds for window in windows], 3, "due")
            above.legend(loc="lower left", ncols=2)
        above.set_ylim(0, 1.15 * max([1.0, *rates, *(window.due / window.seconds for window in windows)]))
        above.set_ylabel("requests/s")
        for number, percent in enumerate(percents):
            _series(below, times, [_window_ms(window, percent) for window in windows], number, f"p{percent:g}")
        _from_zero(
            below, [_window_ms(window, 99.0) for window in windows], [_window_ms(window, 50.0) for window in windows]
        )
        below.set_ylabel("latency (ms)")
        below.set_xlabel("time since measuring began (s)")
        _legend(below)
        if run.figures is not None and windows and run.figures.windows < len(windows):
            begin = windows[-run.figures.windows].begin_s
            for axes in (above, below):
                axes.axvspan(begin, windows[-1].begin_s + windows[-1].seconds, color=SHADE, linewidth=0)
        below.set_xlim(left=0)
    return drawn.svg


def histogram(key: str, figures: Figures) -> str:
    """How often each latency was had, both axes logarithmic, so that the few slow answers are seen."""
    values, counts = Histogram.decode(figures.histogram).filled()
    edges = np.geomspace(0.98 * values[0] * _MS, 1.02 * values[-1] * _MS, _BINS + 1)
    heights, _ = np.histogram(values * _MS, edges, weights=counts)
    description = f"{figures.requests} answers; the table of percentiles tells how they are spread."
    with picture(key, "Histogram of latency", description) as drawn:
        (axes,) = drawn.axes()
        axes.stairs(heights, edges, fill=True, color=SERIES[0], baseline=0.5)
        axes.set_xscale("log")
        axes.set_yscale("log")
        top = 4 * max(heights)
        axes.set_ylim(0.5, top)
        for percent in (50.0, 99.0):
            at = _ms(figures, percent)
            axes.axvline(at, color=INK, linewidth=1, linestyle=_DASHES[1 if percent > 50 else 0])  # noqa: PLR2004 - p50
            axes.annotate(f"p{percent:g}", (at, top), xytext=(3, -10), textcoords="offset points", fontsize=9)
        _plain_numbers(axes, "x")
        _plain_numbers(axes, "y")
        axes.set_xlabel("latency (ms)")
        axes.set_ylabel("answers")
    return drawn.svg


def steps(key: str, rows: Sequence[tuple[str, Step]]) -> str:
    """Where a request's time goes in the server, a stacked bar for each row.

    Args:
        key: Of the picture.
        rows: What to write beside a bar, and what it shows.
    """
    description = f"{len(rows)} bars of queue, input, inference, output and other; the table of steps has the numbers."
    with picture(key, "Time in the server by step", description, height=1.35 + 0.34 * len(rows)) as drawn:
        (axes,) = drawn.axes()
        names = [short(label) for label, _ in rows]
        left = np.zeros(len(rows))
        places = np.arange(len(rows))
        for number, part in enumerate(PARTS):
            widths = np.array([parts_of(step)[part] * _MS for _, step in rows])
            axes.barh(places, widths, left=left, height=0.62, color=SERIES[number], label=part)
            left += widths
        axes.set_yticks(places, names)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("mean time of a request (ms)")
        drawn.figure.legend(loc="outside upper left", ncols=5)
    return drawn.svg


def batch_sizes(key: str, step: Step) -> str:
    """How many executions had which batch size."""
    sizes = sorted(step.batch_sizes, key=lambda one: one.size)
    total = max(1, sum(one.count for one in sizes))
    description = f"{len(sizes)} sizes; the table of batch sizes has the numbers."
    with picture(key, f"Batch sizes of {short(step.model)}", description, height=2.6) as drawn:
        (axes,) = drawn.axes()
        shares = [100 * one.count / total for one in sizes]
        if len(sizes) <= _NUMBERED:
            axes.bar([f"{one.size}" for one in sizes], shares, color=SERIES[0], width=0.8)
        else:
            axes.bar([one.size for one in sizes], shares, color=SERIES[0], width=0.8)
        axes.grid(visible=False, axis="x")
        axes.set_ylim(0, 1.08 * max(shares, default=1.0))
        axes.set_xlabel("inputs in one execution")
        axes.set_ylabel("executions (%)")
    return drawn.svg


def _ms(figures: Figures, percent: float) -> float:
    found = percentile_of(figures, percent)
    return float("nan") if found is None else found.latency_s.value * _MS


def _window_ms(window: Window, percent: float) -> float:
    seconds = {50.0: window.p50_s, 95.0: window.p95_s, 99.0: window.p99_s}[percent]
    return float("nan") if seconds is None else seconds * _MS


def _series(axes: Axes, times: Sequence[float], values: Sequence[float], number: int, label: str) -> None:
    marker = _MARKERS[number] if len(times) <= 60 else ""  # noqa: PLR2004 - more than that touch each other
    axes.plot(times, values, color=SERIES[number], linestyle=_DASHES[number], marker=marker, label=label)


def _from_zero(axes: Axes, largest: Sequence[float], least: Sequence[float]) -> None:
    """A linear axis from zero, or a logarithmic one where small values would not be seen beside large ones."""
    top = max((value for value in largest if value == value), default=1.0)  # noqa: PLR0124 - not NaN
    bottom = min((value for value in least if value > 0), default=1.0)
    if top / bottom > _WIDE:
        axes.set_yscale("log")
        axes.set_ylim(bottom / 1.6, top * 1.8)
        _plain_numbers(axes, "y")
    else:
        axes.set_ylim(0, 1.15 * top)


def _plain_numbers(axes: Axes, which: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter  # noqa: PLC0415 - of an extra

    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < _DENSE * low else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axis.set_minor_formatter(NullFormatter())


def _line(axes: Axes, at: float, label: str) -> None:
    axes.axhline(at, color=INK, linewidth=1, linestyle=":")
    axes.annotate(label, (0, at), xytext=(4, 3), textcoords="offset points", fontsize=9)


def _legend(axes: Axes) -> None:
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2, labelcolor=INK, edgecolor=FAINT)
