"""The command line on a terminal: the bar, what it leaves behind, and Ctrl-C."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.classifiers import text_contract, write_classifier
from support.commands import RADSERVE
from support.servers import wait_until

from radserve_server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

BAR = re.compile(rb"predicting .*?(\d+)%")
INTERRUPTED = "radserve: interrupted\r\n"
SHOW_CURSOR, HIDE_CURSOR = "\x1b[?25h", "\x1b[?25l"
ERASE_LINE = "\x1b[2K"
CTRL_C = b"\x03"
# A report that says "hold FILE" is not answered before there is that file.
HOLDING = """
            import os, time
            for text in texts:
                while text.startswith("hold ") and not os.path.exists(text[5:]):
                    time.sleep(0.01)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    repository = tmp_path_factory.mktemp("repository")
    write_classifier(repository, text_contract())
    step = repository / "triage_step" / "1" / "model.py"
    before, texts, after = step.read_text().partition("for row in given]\n")
    step.write_text(before + texts + HOLDING + after)
    with EmbeddedServer(repository, verify=False, supervise=False) as running:
        yield running


class Terminal:
    """A command whose standard input and error are a terminal; standard output is one, too, or a pipe."""

    def __init__(self, arguments: Sequence[str], *, stdout: int | None) -> None:
        self._mine, theirs = pty.openpty()
        self.shown = b""
        # A session of its own, so that what is typed reaches it as a signal.
        self.process = subprocess.Popen(  # noqa: S603 - ourselves
            ["setsid", "--ctty", *RADSERVE, *arguments],  # noqa: S607 - of util-linux, on every Linux
            stdin=theirs,
            stdout=theirs if stdout is None else stdout,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
        )
        os.close(theirs)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        with suppress(OSError):  # EIO: the other side has ended
            while part := os.read(self._mine, 4096):
                self.shown += part

    def type(self, keys: bytes) -> None:
        os.write(self._mine, keys)

    def percent(self) -> int:
        found = BAR.findall(self.shown)
        return int(found[-1]) if found else -1

    def end(self) -> tuple[int, str, str]:
        """Exit status, standard output if that is a pipe, and what the terminal was sent."""
        out, _ = self.process.communicate(timeout=60)
        self._reader.join(60)
        return self.process.returncode, (out or b"").decode(), self.shown.decode()

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        self._reader.join()
        os.close(self._mine)


@pytest.fixture
def run(server: EmbeddedServer) -> Iterator[Callable[..., Terminal]]:
    """A function that starts ``radserve predict`` on reports, one at a time."""
    running: list[Terminal] = []

    def start(*reports: str, more: Sequence[str] = (), stdout: int | None = subprocess.PIPE) -> Terminal:
        texts = [word for report in reports for word in ("--text", report)]
        command = ["predict", "triage", *texts, "--workers", "1", "--url", server.grpc_url, *more]
        running.append(Terminal(command, stdout=stdout))
        return running[-1]

    yield start
    for terminal in running:
        terminal.close()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """A file for which a report waits; made at the latest when the test ends."""
    yield tmp_path / "gate"
    (tmp_path / "gate").touch()


def test_the_bar_is_on_the_terminal_and_json_alone_on_standard_output(gate: Path, run: Callable[..., Terminal]) -> None:
    terminal = run("calm 1", "calm 2", "calm 3", f"hold {gate}", more=["--json"])
    assert wait_until(lambda: terminal.percent() == 75), terminal.shown
    gate.touch()
    status, out, shown = terminal.end()
    assert status == 0
    assert [json.loads(line)["input"] for line in out.splitlines()] == [f"text {number}" for number in range(1, 5)]
    assert is_clean(shown)
    assert after_the_bar(shown) == ""


def is_clean(shown: str) -> bool:
    """Whether the bar was shown, and the cursor is back."""
    return HIDE_CURSOR in shown and shown.rindex(SHOW_CURSOR) > shown.rindex(HIDE_CURSOR)


def after_the_bar(shown: str) -> str:
    """What stands on the terminal when the bar's line was erased for the last time."""
    return shown[shown.rindex(ERASE_LINE) + len(ERASE_LINE) :].replace(SHOW_CURSOR, "")


def test_lines_on_the_same_terminal_are_not_disturbed_by_a_bar(run: Callable[..., Terminal]) -> None:
    terminal = run("calm 1", "calm 2", "calm 3", "calm 4", more=["--json"], stdout=None)
    status, _, shown = terminal.end()
    assert status == 0
    assert [json.loads(line)["input"] for line in shown.splitlines()] == [f"text {number}" for number in range(1, 5)]


def test_the_table_is_on_standard_output_when_the_bar_is_gone(gate: Path, run: Callable[..., Terminal]) -> None:
    terminal = run("calm 1", "calm 2", "calm 3", f"hold {gate}", stdout=None)
    assert wait_until(lambda: terminal.percent() == 75), terminal.shown
    gate.touch()
    status, _, shown = terminal.end()
    assert status == 0
    assert is_clean(shown)
    table = after_the_bar(shown)
    assert "predicting" not in table
    assert table.count("urgent") == 4


@pytest.mark.parametrize("more", [(), ("--json",)], ids=["table", "json"])
def test_ctrl_c_shows_what_was_answered_and_leaves_a_clean_line(
    gate: Path, run: Callable[..., Terminal], more: Sequence[str]
) -> None:
    terminal = run("calm 1", "calm 2", "calm 3", f"hold {gate}", more=more)
    assert wait_until(lambda: terminal.percent() == 75), terminal.shown
    terminal.type(CTRL_C)
    status, out, shown = terminal.end()
    assert status == 130
    assert [number for number in range(1, 6) if f"text {number}" in out] == [1, 2, 3]
    assert is_clean(shown)
    assert after_the_bar(shown) == f"radserve: 3 answered, 0 refused, 1 left\r\n{INTERRUPTED}"


def test_ctrl_c_keeps_what_was_answered_in_the_file_and_the_next_run_does_the_rest(
    gate: Path, run: Callable[..., Terminal], tmp_path: Path
) -> None:
    reports = ("calm 1", "calm 2", "calm 3", f"hold {gate}")
    more = ["--out", str(tmp_path / "results.jsonl"), "--resume"]
    terminal = run(*reports, more=more)
    assert wait_until(lambda: terminal.percent() == 75), terminal.shown
    terminal.type(CTRL_C)
    status, out, shown = terminal.end()
    assert status == 130
    assert "3 answered, 0 refused, 1 left" in out
    assert after_the_bar(shown) == INTERRUPTED
    gate.touch()
    assert run(*reports, more=more).end()[:2] == (0, f"{tmp_path / 'results.jsonl'}: 4 answered, 0 refused\n")


@pytest.mark.parametrize("more", [(), ("--json",)], ids=["table", "json"])
def test_a_full_disk_is_one_line(server: EmbeddedServer, more: Sequence[str]) -> None:
    command = [*RADSERVE, "predict", "triage", "--text", "calm", "--url", server.grpc_url, *more]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)  # noqa: S603 - ourselves
    assert (done.returncode, done.stderr) == (1, "radserve: No space left on device\n")


def test_without_a_terminal_there_is_no_bar(server: EmbeddedServer) -> None:
    texts = [word for number in range(5) for word in ("--text", f"calm {number}")]
    for more in ([], ["--json"]):
        command = [*RADSERVE, "predict", "triage", *texts, "--url", server.grpc_url, *more]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - ourselves
        assert (done.returncode, done.stderr) == (0, "")
        assert "\x1b" not in done.stdout


def test_a_load_test_tells_how_far_it_is_on_the_terminal_alone(server: EmbeddedServer) -> None:
    load = ["--warm-up", "1", "--window", "0.2", "--duration", "600"]
    terminal = Terminal(["loadtest", "triage", "--url", server.grpc_url, *load], stdout=subprocess.PIPE)
    try:
        assert wait_until(lambda: b"of at most 600 s" in terminal.shown), terminal.shown
        terminal.type(CTRL_C)
        status, out, shown = terminal.end()
    finally:
        terminal.close()
    assert status == 130
    assert "1 in flight: warming up, 1 s" in shown
    assert re.search(r"\d of at most 600 s: [\d.]+ inferences/s, p50 [\d.]+ ms, p95 [\d.]+ ms", shown)
    assert is_clean(shown)
    assert after_the_bar(shown) == ""
    assert "interrupted: this is what was measured until then" in out
    assert "warming up" not in out
