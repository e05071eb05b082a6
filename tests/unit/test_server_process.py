from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radserve.errors import ServerStartError
from radserve_server.discover import find_triton
from radserve_server.guarded import one_line
from radserve_server.process import ServerProcess

_NOISE = 'E1122 17:31:21.180200 7611 server.cc:241] "CudaDriverHelper has not been initialized."'


@given(st.text())
def test_a_log_line_stays_one_printable_line(text: str) -> None:
    escaped = one_line(text)
    assert len(escaped.splitlines()) <= 1
    assert "\x1b" not in escaped


@pytest.mark.parametrize(
    ("log", "telling"),
    [
        (
            [
                _NOISE,
                "E1122 17:31:21.181559 1 a.cc:1] \"failed to load 'a' version 1: Internal: bad graph\"",
                "error: creating server: Internal - failed to load all models",
            ],
            "model a version 1 cannot be loaded: Internal: bad graph",
        ),
        (
            [_NOISE, 'E1122 17:53:49.055116 1 a.cc:1] "Poll failed"', 'E1122 17:53:49.055116 1 a.cc:1] "no ensemble"'],
            "Poll failed",
        ),
        ([_NOISE, "error: failed to parse something"], "failed to parse something"),
        (
            [_NOISE, "tritonserver: unrecognized option '--nonsense'", "Usage:", ""],
            "tritonserver: unrecognized option '--nonsense'",
        ),
        ([], "it wrote nothing"),
    ],
)
def test_the_telling_line_of_a_log(log: list[str], telling: str) -> None:
    process = ServerProcess(find_triton(), [], drain_s=1)
    process._lines.extend(log)
    assert process.telling_line() == telling


@pytest.mark.parametrize(
    ("received", "why"),
    [
        (signal.SIGKILL, "SIGKILL"),
        (signal.SIGTERM, "SIGTERM"),
        (signal.SIGSEGV, "SIGSEGV: Poll failed"),
    ],
)
@pytest.mark.parametrize("ended", ["the server", "the guard"])
def test_no_line_of_the_log_is_blamed_for_what_somebody_else_did(
    ended: str, received: signal.Signals, why: str
) -> None:
    process = ServerProcess(find_triton(), [], drain_s=1)
    process._lines.append('E1122 17:53:49.055116 1 a.cc:1] "Poll failed"')
    end = "os._exit(128 + {})" if ended == "the server" else "os.kill(os.getpid(), {})"
    code = f"import os; {end.format(int(received))}"
    guard = process._guarded._guard = subprocess.Popen([sys.executable, "-c", code])  # noqa: S603 - our own Python
    guard.wait()
    assert process.why_it_ended() == why


def test_a_guard_that_does_not_start_in_time_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(*_: object, **__: object) -> None:
        message = "timed out"
        raise TimeoutError(message)

    process = ServerProcess(find_triton(), [], drain_s=1)
    monkeypatch.setattr(process._guarded, "spawn", late)
    with pytest.raises(ServerStartError, match="cannot be prepared: timed out"):
        process.start()
    assert not process.runtime.folder.exists()
