"""Histograms, percentiles with their intervals, agreement of windows, and arrival times."""

from __future__ import annotations

import math
from itertools import islice, takewhile

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram

from radserve.loadtest._histogram import Histogram
from radserve.loadtest._schedule import poisson
from radserve.loadtest._statistics import agree, mean_of, percentile, rank_interval, rank_of

SECONDS = [1e-9, 1e-6, 2e-6, 0.00101, 0.0020471, 0.002048, 0.00411, 0.25, 1.0, 59.9, 3600.0, 1e6]


def histogram_of(seconds: list[float]) -> Histogram:
    histogram = Histogram()
    histogram.record(seconds)
    return histogram


def test_values_are_counted_where_hdrhistogram_counts_them() -> None:
    reference = HdrHistogram(1, 3_600_000_000, 3)
    for seconds in SECONDS:
        assert reference.record_value(min(3_600_000_000, max(1, round(seconds * 1e6))))
    assert histogram_of(SECONDS).encode() == reference.encode()


def test_a_histogram_survives_the_way_through_its_encoding() -> None:
    histogram = histogram_of(SECONDS)
    again = Histogram.decode(histogram.encode())
    assert (again.n, again.encode()) == (histogram.n, histogram.encode())
    assert again.at_ranks([1, again.n]) == histogram.at_ranks([1, histogram.n])


def test_merged_histograms_are_that_of_all_values() -> None:
    chance = np.random.default_rng(1)
    parts = [chance.lognormal(-5, 1, size).tolist() for size in (1, 0, 500, 20_000)]
    merged = Histogram()
    for part in parts:
        merged.add(Histogram.decode(histogram_of(part).encode()))
    together = histogram_of([value for part in parts for value in part])
    assert merged.encode() == together.encode()
    assert merged.at_ranks([1, 100]) == together.at_ranks([1, 100])


def test_a_value_is_told_to_a_thousandth() -> None:
    values = np.random.default_rng(2).lognormal(-4, 1, 5000)
    histogram = histogram_of(values.tolist())
    ranks = list(range(1, 5001, 7))
    told = np.array(histogram.at_ranks(ranks))
    assert told == pytest.approx(np.sort(values)[np.array(ranks) - 1], rel=1e-3, abs=1e-6)
    assert histogram.mean() == pytest.approx(values.mean(), rel=1e-3)


@pytest.mark.parametrize(
    ("n", "percent", "rank"), [(1, 99, 1), (100, 99, 99), (100, 50, 50), (101, 50, 51), (1000, 99.9, 999), (3, 1, 1)]
)
def test_the_rank_of_a_percentile(n: int, percent: float, rank: int) -> None:
    assert rank_of(n, percent) == rank


@pytest.mark.parametrize(("n", "percent"), [(20, 50), (100, 90), (1000, 99), (777, 99.9), (50_000, 95)])
def test_the_interval_holds_95_percent_of_the_binomial_and_no_rank_less_would(n: int, percent: float) -> None:
    p = percent / 100
    logs = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(p) + (n - k) * math.log1p(-p)
        for k in range(n + 1)
    ]
    below = np.cumsum(np.exp(logs))
    low, high = rank_interval(n, percent)
    if low is not None:
        assert below[low - 1] <= 0.025 < below[low] or below[low - 1] < 0.025 <= below[low]
    if high is None:
        assert below[n - 1] < 0.975
    else:
        assert 1 - below[high - 1] <= 0.025
        assert 1 - below[high - 2] > 0.025


@pytest.mark.parametrize("percent", [50.0, 90.0, 99.0])
def test_intervals_hold_the_true_percentile_as_often_as_they_say(percent: float) -> None:
    chance = np.random.default_rng(3)
    true = -math.log(1 - percent / 100)
    runs, n = 4000, 1000
    low, high = rank_interval(n, percent)
    assert low is not None
    assert high is not None
    samples = np.sort(chance.exponential(1.0, (runs, n)), axis=1)
    held = ((samples[:, low - 1] <= true) & (true < samples[:, high - 1])).mean()
    assert 0.94 <= held <= 0.985


def test_too_few_values_give_no_upper_end() -> None:
    told = percentile(histogram_of([0.01] * 200), 99)
    assert told.latency_s.high is None
    assert told.latency_s.low is not None
    assert percentile(histogram_of([0.01] * 400), 99).latency_s.high is not None
    assert rank_interval(0, 50) == (None, None)


def test_the_mean_of_windows_has_students_interval() -> None:
    told = mean_of([9.0, 10.0, 11.0])
    assert (told.value, told.low, told.high) == pytest.approx(
        (10, 10 - 4.303 / math.sqrt(3), 10 + 4.303 / math.sqrt(3))
    )
    assert mean_of([7.0]).low is None
    many = mean_of([9.0, 11.0] * 200)
    assert many.high == pytest.approx(10 + 1.9659 * math.sqrt(400 / 399) / math.sqrt(400), rel=1e-4)


@pytest.mark.parametrize(
    ("values", "is_so"),
    [
        ([100, 100, 100], True),
        ([91, 100, 109], True),
        ([89, 100, 111], False),
        ([100, 100, None], False),
        ([0, 0, 0], False),
        ([], False),
    ],
)
def test_windows_agree_within_a_tenth_of_their_mean(values: list[float | None], *, is_so: bool) -> None:
    assert agree(values, 0.10) is is_so


def test_arrivals_are_a_poisson_process_of_the_rate() -> None:
    times = np.array(list(takewhile(lambda time: time < 100, poisson(200, seed=4, worker=0))))
    gaps = np.diff(times)
    assert len(times) == pytest.approx(20_000, abs=4 * math.sqrt(20_000))
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.03)
    counts = np.bincount(times.astype(int))
    assert counts.var() == pytest.approx(counts.mean(), rel=0.5)


def test_arrivals_repeat_with_the_seed_and_differ_between_workers() -> None:
    first, again, other, next_seed = (
        list(islice(poisson(10, seed=seed, worker=worker), 5000)) for seed, worker in ((5, 0), (5, 0), (5, 1), (6, 0))
    )
    assert first == again
    assert first == sorted(first)
    assert not {*first} & {*other, *next_seed}
