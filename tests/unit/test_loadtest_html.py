"""A load test's report as a page: whole, escaped, with the report's own numbers, and drawn by a browser."""

from __future__ import annotations

import re
from functools import cache
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import msgspec
import pytest
from support.loads import HOSTILE, PLAN, errors, invalid_run, report_of, run_of

from radserve.errors import MissingExtraError
from radserve.loadtest import Ending, Plan, Report, Scenario, Search, dump_html, dump_report
from radserve.loadtest._figures import Totals

if TYPE_CHECKING:
    from collections.abc import Iterator

VOID = {"meta", "br", "img", "path", "use", "rect"}
OPEN = Plan(scenario=Scenario.SERVER, rate=60.0, concurrency=1024, percentile=99.0)
REPORTS = {
    "ordinary": report_of(),
    "sweep": report_of([run_of(msgspec.structs.replace(PLAN, concurrency=one)) for one in (2, 4, 8)]),
    "search": report_of(
        [run_of(OPEN), invalid_run(OPEN)],
        search=Search(percent=99.0, latency_s=0.05, rate=60.0, limit="at 70 requests/s p99 was 61 ms"),
    ),
    "invalid": report_of([invalid_run()]),
    "partial": report_of([run_of(ending=Ending.SERVER_LOST, notes=("the server is gone",), errors=errors())]),
    "nothing": report_of([run_of(figures=None, windows=0, steps=())]),
    "batches": report_of([run_of(msgspec.structs.replace(PLAN, inputs_per_request=16))]),
}


@cache
def page_of(name: str) -> str:
    return dump_html(REPORTS[name])


class Parsed(HTMLParser):
    """Tags that are opened and closed in order, numbers, ids, and what is text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.values: list[float] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "data":
            self.values.append(float(str(dict(attrs)["value"])))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def numbers(value: object) -> Iterator[float]:
    if isinstance(value, dict):
        for one in value.values():
            yield from numbers(one)
    elif isinstance(value, list):
        for one in value:
            yield from numbers(one)
    elif isinstance(value, (int, float)):
        yield float(value)


@pytest.mark.parametrize("name", REPORTS)
def test_the_page_is_well_formed_and_needs_nothing_else(name: str) -> None:
    page = page_of(name)
    parsed = Parsed(page)
    assert parsed.open == []
    assert "://" not in page
    assert not parsed.all("script")
    assert not re.search(r"url\((?!#)|@import|@font-face", page)
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len({*ids})
    used = set(re.findall(r'url\(#([^)]*)\)|href="#([^"]*)"', page))
    assert {one or other for one, other in used} <= {*ids}
    assert not re.search(r"#0[1-8]0[1-8]0[1-8]", page), "a stand-in is left without its colour"


@pytest.mark.parametrize("name", REPORTS)
def test_each_number_of_a_table_is_the_reports(name: str) -> None:
    report = REPORTS[name]
    told = {*numbers(msgspec.json.decode(dump_report(report)))}
    for step in (step for run in report.runs for step in run.steps):
        parts = (step.queue_s, step.compute_input_s, step.compute_infer_s, step.compute_output_s)
        told.add(step.total_s - sum(parts))
    values = Parsed(page_of(name)).values
    assert len(values) > 10 or name == "nothing"
    assert {*values} <= told


def test_the_tables_tell_all_percentiles_with_their_intervals_and_all_windows() -> None:
    (run,) = REPORTS["ordinary"].runs
    assert run.figures is not None
    shown = {*Parsed(page_of("ordinary")).values}
    for one in run.figures.percentiles:
        assert {one.latency_s.value, one.latency_s.low, one.latency_s.high} <= shown
    for window in run.windows:
        assert {window.p50_s, window.p90_s, window.p95_s, window.p99_s, window.most_s, window.requests} <= shown
    assert {run.figures.requests_per_s.value, run.client.cpu, run.totals.failed} <= shown


@pytest.mark.parametrize("name", REPORTS)
def test_each_picture_has_a_title_and_a_description_of_its_own(name: str) -> None:
    parsed = Parsed(page_of(name))
    pictures = [attributes for attributes in parsed.all("svg") if attributes.get("role") == "img"]
    titles = {str(one["aria-labelledby"]) for one in pictures}
    ids = {attributes.get("id") for _, attributes in parsed.tags}
    assert len(titles) == len(pictures) == len(parsed.all("svg"))
    assert all({*title.split()} <= ids for title in titles)
    runs = [run for run in REPORTS[name].runs if run.figures is not None]
    assert len(pictures) >= 4 * len(runs)


def test_hostile_names_stay_text() -> None:
    run = run_of(errors=errors(HOSTILE), notes=(HOSTILE,))
    steps = tuple(msgspec.structs.replace(step, model=HOSTILE) for step in run.steps)
    page = dump_html(report_of([msgspec.structs.replace(run, steps=steps)], model=HOSTILE, servers=(HOSTILE,)))
    parsed = Parsed(page)
    assert not parsed.all("script")
    assert "<script>alert('x')</script> & $\\frac{" in "".join(parsed.text)
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert "Content-Security-Policy" in page


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("ordinary", "Valid: the load generator kept up, the last windows agree."),
        ("invalid", "Invalid: the load generator, not the server, was the limit, so that no figures are given."),
        ("partial", "Partial: the server stopped answering; the figures are of what was measured until then."),
        ("nothing", "Nothing was measured: no request was answered well in the time measured."),
        ("search", "Highest rate that meets p99 of at most 50 ms: 60 requests/s; at 70 requests/s p99 was 61 ms."),
    ],
)
def test_the_page_says_whether_its_figures_can_be_relied_on(name: str, sentence: str) -> None:
    assert sentence in "".join(Parsed(page_of(name)).text)


def test_a_search_that_is_cut_short_is_no_good_result() -> None:
    report = msgspec.structs.replace(REPORTS["search"], cut_short="no server <answers>")
    page = dump_html(report)
    assert '<p class="verdict fair">Highest rate so far that meets' in page
    assert "Partial: no further load could be measured: no server &lt;answers&gt;" in page


def test_a_run_with_many_failures_is_no_good_result() -> None:
    pages = [dump_html(report_of([run_of(totals=Totals(sent=100, failed=failed))])) for failed in (0, 50)]
    assert ['class="verdict good"' in page for page in pages] == [True, False]


def test_an_invalid_run_has_no_figure_of_the_server() -> None:
    text = "".join(Parsed(page_of("invalid")).text)
    assert "Histogram" not in text
    assert "In the server" not in text
    assert "no measure of the server" in text


def test_the_same_report_gives_the_same_page() -> None:
    assert dump_html(REPORTS["ordinary"]) == page_of("ordinary")


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match="loadtest"):
        dump_html(REPORTS["ordinary"])


def test_other_code_keeps_its_matplotlib_settings() -> None:
    mpl = pytest.importorskip("matplotlib")
    before = mpl.rcParams["svg.fonttype"]
    dump_html(REPORTS["ordinary"])
    assert mpl.rcParams["svg.fonttype"] == before


def test_a_report_that_was_read_gives_the_page_of_the_one_that_was_written() -> None:
    report = REPORTS["partial"]
    assert dump_html(msgspec.json.decode(dump_report(report), type=Report)) == page_of("partial")
