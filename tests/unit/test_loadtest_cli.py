"""``radserve loadtest --compare``, and options that do not go together; no server is needed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace
from support.loads import HOSTILE, PLAN, invalid_run, report_of, run_of
from support.sdk_contracts import contract

from radserve.cli import main
from radserve.cli._loadtest_runs import Asked, Files, Target, measure_in_turn
from radserve.cli._loadtest_show import print_runs, problem_of_all
from radserve.errors import InputError, RadserveError
from radserve.loadtest import Ending, Goal, Scenario, Search, dump_report
from radserve.options import ClientOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from radserve.loadtest import Report, Run

    Command = Callable[..., tuple[int, str, str]]

URL = ("--url", "127.0.0.1:1")
FOUND = Search(percent=99, latency_s=0.05, rate=60, limit="at 70")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.chdir(tmp_path)

    def command(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["loadtest", *arguments])
        told = capsys.readouterr()
        return int(ended.value.code or 0), told.out, told.err

    return command


def written(folder: Path, name: str, report: Report) -> str:
    path = folder / name
    path.write_bytes(dump_report(report))
    return str(path)


def test_a_comparison_is_printed_and_written(run: Command, tmp_path: Path) -> None:
    before = written(tmp_path, "a.json", report_of([run_of(requests=300)]))
    after = written(tmp_path, "b.json", report_of([run_of(requests=400, latency_s=0.015, seed=1)], model="other"))
    status, out, _ = run("--compare", before, after, "--json", "c.json")
    assert status == 0
    assert "inferences/s" in out
    assert "faster" in out
    assert "note: model is not the same: chest_xray 3, then other 3" in out
    told = json.loads((tmp_path / "c.json").read_bytes())
    (load,) = told["loads"]
    first = load["changes"][0]
    assert (first["figure"], first["verdict"]) == ("inferences/s", "faster")
    assert first["ratio"]["value"] == pytest.approx(4 / 3)
    assert first["ratio"]["low"] <= first["ratio"]["value"] <= first["ratio"]["high"]


def test_what_a_report_says_steers_no_terminal(run: Command, tmp_path: Path) -> None:
    reports = [
        written(tmp_path, f"{name}.json", report_of([run_of(), replace(invalid_run(), invalid=(HOSTILE,))], model=name))
        for name in ("\x1b[2J\u202e", "b")
    ]
    _, out, err = run("--compare", *reports)
    assert "\x1b" not in out + err
    assert "\u202e" not in out + err


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"{}", "no report of radserve loadtest"),
        (b"\xff\x00", "no report of radserve loadtest"),
        (None, "cannot be read: No such file"),
        (dump_report(report_of([invalid_run()])), "nothing can be compared"),
        (dump_report(report_of([run_of(replace(PLAN, concurrency=2)), run_of()])), None),
    ],
)
def test_what_cannot_be_compared_is_told_in_one_line(
    run: Command, tmp_path: Path, text: bytes | None, sentence: str | None
) -> None:
    good = written(tmp_path, "good.json", report_of())
    if text is not None:
        (tmp_path / "other.json").write_bytes(text)
    status, out, err = run("--compare", good, "other.json")
    assert status == (0 if sentence is None else 1)
    if sentence is not None:
        assert sentence in err
        assert len(err.strip().splitlines()) == 1
        assert out == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ("name the model",)),
        (("m", *URL, "--find-max-rate"), ("--slo", "p99=50ms")),
        (("m", *URL, "--slo", "p99=50ms"), ("--find-max-rate",)),
        (("m", *URL, "--sweep", "1,2", "--concurrency", "3"), ("--sweep", "--concurrency", "exclude")),
        (("m", *URL, "--sweep", "1,2", "--rate", "3"), ("--sweep", "--rate", "exclude")),
        (("m", *URL, "--sweep", "1,2", "--find-max-rate", "--slo", "p99=1s"), ("--find-max-rate", "exclude")),
        (("m", "--compare", "a.json", "b.json"), ("--compare", "--model", "exclude")),
        (("--compare", "a.json", "b.json", "--html", "c.html"), ("--compare", "--html", "exclude")),
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(
    run: Command, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    status, _, err = run(*arguments)
    assert status == 2
    assert all(word in err for word in words), err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--sweep", "1,x"), "1,x is no list of concurrencies: write it as 1,2,4,8"),
        (("--find-max-rate", "--slo", "50ms"), "50ms is no goal for the latency: write it as p99=50ms"),
        (("--html", "none/load.html"), "there is no folder none to write load.html to"),
        (("--csv", "none/load.csv"), "there is no folder none to write load.csv to"),
        (("--json", "."), ". is a folder: name a file in it"),
        (("--json", "/proc/load.json"), "cannot write to /proc/load.json: "),
        (("--json", "load", "--html", "./load"), "give --json, --csv and --html a file each"),
        (("--sweep", ""), " is no list of concurrencies"),
    ],
)
def test_what_is_wrong_is_told_before_a_server_is_asked(
    run: Command, arguments: tuple[str, ...], sentence: str
) -> None:
    status, _, err = run("m", *URL, *arguments)
    assert status == 1
    assert sentence in " ".join(err.split())


def test_a_page_is_not_promised_without_matplotlib(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    status, _, err = run("m", *URL, "--html", "load.html")
    assert status == 1
    assert "'loadtest' extra" in err


def test_a_file_that_cannot_be_written_costs_no_other(tmp_path: Path) -> None:
    (tmp_path / "load.windows.csv").mkdir()
    files = Files(tmp_path / "load.json", tmp_path / "load.csv", tmp_path / "load.html")
    files.check()
    with pytest.raises(InputError, match=r"cannot write to .*load\.windows\.csv"):
        files.write(report_of())
    assert all(path is not None and path.is_file() for path in files)


@pytest.mark.parametrize("to", ["/dev/null", "/dev/stdout"])
def test_streams_and_devices_are_written_to_as_they_are(to: str) -> None:
    Files(Path(to), None, None).check()


def test_a_sweep_has_no_more_workers_than_requests_in_flight() -> None:
    given = {"workers": 4, "concurrency": None}
    plans = Asked(Scenario.CLOSED_LOOP, given, goal=None, swept=(1, 2, 8)).plans(contract())
    assert [(plan.concurrency, plan.workers) for plan in plans] == [(1, 1), (2, 2), (8, 4)]


def test_a_search_begins_with_no_rate_of_0() -> None:
    given = {"workers": 1, "concurrency": None, "rate": 0.0}
    with pytest.raises(InputError, match="the rate must be"):
        Asked(Scenario.SERVER, given, goal=Goal.of("p99=1s"), swept=()).plans(contract())


def test_what_was_measured_stays_when_no_further_load_can_be() -> None:
    async def loads(measure: object) -> AsyncIterator[Run]:
        assert callable(measure)
        yield run_of()
        msg = "no server answers"
        raise RadserveError(msg)

    target = Target(contract(), ClientOptions(endpoints=("127.0.0.1:1",)), [])
    assert asyncio.run(measure_in_turn(target, loads)) == ((run_of(),), "no server answers")


@pytest.mark.parametrize(
    ("report", "problem"),
    [
        (report_of([run_of()], search=FOUND), None),
        (report_of([run_of()], search=replace(FOUND, rate=None)), "no rate was found: at 70"),
        (report_of([run_of()], search=FOUND, cut_short="gone"), "no further load could be measured: gone"),
        (report_of([run_of()], cut_short="gone"), "no further load could be measured: gone"),
        (
            report_of([run_of(), run_of(ending=Ending.SERVER_LOST, notes=("it is gone",))], search=FOUND),
            "it is gone (what was measured until then is shown above)",
        ),
    ],
)
def test_several_runs_are_a_failure_where_they_do_not_tell_what_was_asked(
    report: Report, problem: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert problem_of_all(report) == problem
    print_runs(report)
    assert ("highest rate so far" in capsys.readouterr().out) is (report.is_partial and report.search is not None)


def test_a_search_that_found_no_rate_says_why_once(capsys: pytest.CaptureFixture[str]) -> None:
    report = report_of([run_of(), run_of()], search=Search(percent=99.0, latency_s=0.05, rate=None, limit="too slow"))
    print_runs(report)
    assert "too slow" not in capsys.readouterr().out
    assert problem_of_all(report) == "no rate was found: too slow"
